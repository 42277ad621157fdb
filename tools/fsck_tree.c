/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fsck's walk over the tree: names, directory ids, symbolic links; and the same walk once more, silently, for who wants
 * the files. What files contain is judged by fsck_data.c.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/text.h"
#include "fs/tree/dir_id.h"
#include "fs/tree/name_crypt.h"
#include "fs/tree/symlink_crypt.h"
#include "tools/fsck.h"

struct walk {
	struct cmek_fsck *fsck;
	/* The second walk: files only, nothing is told. */
	int (*visit)(void *arg, const struct cmek_fsck_file *file);
	void *arg;
	void *dir_ids;  /* tsearch: CMEK_DIR_ID_LEN bytes each */
	void *link_ids; /* tsearch: texts */
	bool unsure;    /* something was not read: a piece that no link has may have one there */
};

/* A directory in the walk. */
struct place {
	int fd;
	char *stored;  /* path in the store, "" = the root */
	char *plain;   /* as users see it, NULL = unknown */
	bool has_id;
	struct cmek_dir_id id;
	bool leave; /* no name of it opens: its id or the header is at fault, its entries stay where they are */
	char **names;
	size_t n_names;
};

static void place_done(struct place *place)
{
	size_t i;

	for (i = 0; i < place->n_names; i++)
		free(place->names[i]);
	free(place->names);
	free(place->stored);
	free(place->plain);
	if (place->fd >= 0)
		close(place->fd);
}

static char *join(const char *dir, const char *name)
{
	char *path = NULL;

	if (asprintf(&path, "%s%s%s", dir, dir[0] && strcmp(dir, "/") ? "/" : "", name) < 0)
		return NULL;
	return path;
}

int cmek_fsck_quarantine(struct cmek_fsck *fsck, int dir_fd, const char *name, char ret_name[CMEK_FSCK_LOST_NAME])
{
	char hex[CMEK_HEX_LEN(8) + 1], path[CMEK_FSCK_LOST_NAME + 8];
	uint8_t random[8];

	cmek_random(random, sizeof(random));
	cmek_hex_encode(random, sizeof(random), hex);
	snprintf(ret_name, CMEK_FSCK_LOST_NAME, "fsck-%s", hex);
	snprintf(path, sizeof(path), "lost/%s", ret_name);
	return renameat(dir_fd, name, fsck->meta_fd, path) ? -errno : 0;
}

/* Tells of an entry, moved away where that is due. what: more to say, or NULL. */
static void tell_entry(struct walk *walk, const struct place *place, const char *name, enum cmek_fsck_code code,
		       const char *plain, const char *what)
{
	const char *space = what ? ": " : "";
	char *stored = join(place->stored, name), lost[CMEK_FSCK_LOST_NAME];
	bool fixed = false;

	walk->unsure = true;
	if (!place->leave && cmek_fsck_may_fix(&walk->fsck->findings, code) &&
	    cmek_fsck_row(code)->repair == CMEK_FSCK_QUARANTINE)
		fixed = !cmek_fsck_quarantine(walk->fsck, place->fd, name, lost);
	cmek_fsck_tell(&walk->fsck->findings, code, stored ? stored : name, plain, fixed, what || fixed ? "%s%s%s" : NULL,
		       what ? what : "", what && fixed ? space : "", fixed ? lost : "");
	free(stored);
}

static int read_names(struct place *place)
{
	int fd = openat(place->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret = 0;
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;
	char **grown;

	if (!dir) {
		ret = -errno;
		if (fd >= 0)
			close(fd);
		return ret;
	}
	while (!ret && (errno = 0, entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		grown = reallocarray(place->names, place->n_names + 1, sizeof(*grown));
		if (!grown) {
			ret = -ENOMEM;
			break;
		}
		place->names = grown;
		grown[place->n_names] = strdup(entry->d_name);
		ret = grown[place->n_names] ? 0 : -ENOMEM;
		place->n_names += !ret;
	}
	if (!ret && errno)
		ret = -errno;
	closedir(dir);
	return ret;
}

static bool has_entries(const struct place *place)
{
	enum cmek_store_name_kind kind;
	size_t i;

	for (i = 0; i < place->n_names; i++) {
		kind = cmek_name_kind(place->names[i]);
		if (kind == CMEK_STORE_NAME_SHORT || kind == CMEK_STORE_NAME_LONG)
			return true;
	}
	return false;
}

static int compare_ids(const void *a, const void *b)
{
	return memcmp(a, b, CMEK_DIR_ID_LEN);
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* True when it was new; no memory counts as new. */
static bool remember(void **set, const void *what, size_t len, int (*compare)(const void *a, const void *b))
{
	void *copy = malloc(len), *node;
	bool is_new;

	if (!copy)
		return true;
	memcpy(copy, what, len);
	node = tsearch(copy, set, compare);
	is_new = !node || *(void **)node == copy;
	if (!node || !is_new)
		free(copy);
	return is_new;
}

/* The key of the names, with a reference; NULL: it can't be had, and why is told. */
static struct cmek_secret *name_key(struct walk *walk, const struct place *place)
{
	struct cmek_secret *key = NULL;
	int ret;

	if (!walk->fsck->ring || !place->has_id)
		return NULL;
	ret = cmek_keyring_name_key(walk->fsck->ring, place->id.dek, &key);
	if (ret && !walk->visit)
		cmek_fsck_tell(&walk->fsck->findings, ret == -ENOKEY ? CMEK_FSCK_DEK_UNKNOWN : CMEK_FSCK_DEK_RETIRED,
			       place->stored[0] ? place->stored : ".", place->plain, false, "data key %u", place->id.dek);
	return ret ? NULL : key;
}

/* The plain name of an entry with a stored form, under the directory's keys: 0 or -EBADMSG. */
static int decrypt(struct walk *walk, const struct place *place, const struct cmek_secret *key, const char *form,
		   char plain[CMEK_PLAIN_NAME_MAX + 1])
{
	struct cmek_secret *old = NULL;
	int ret = cmek_name_decrypt(key, place->id.id, form, strlen(form), plain);

	if (ret && place->id.old_dek && !cmek_keyring_name_key(walk->fsck->ring, place->id.old_dek, &old))
		ret = cmek_name_decrypt(old, place->id.id, form, strlen(form), plain);
	cmek_secret_free(old);
	return ret;
}

/* Where a long entry's stored form is: 0, or the finding's code. */
static int read_long(const struct place *place, const char *entry, char form[CMEK_STORED_FORM_MAX + 2],
		     enum cmek_fsck_code *ret_code)
{
	char link[CMEK_LONG_HASH_LEN + 3];
	ssize_t n;

	cmek_name_link_of(entry, link);
	n = readlinkat(place->fd, link, form, CMEK_STORED_FORM_MAX + 1);
	*ret_code = n < 0 && errno == ENOENT ? CMEK_FSCK_LONG_NO_LINK : CMEK_FSCK_LONG_BAD_LINK;
	if (n < 0 || n > CMEK_STORED_FORM_MAX)
		return -EBADMSG;
	form[n] = '\0';
	return cmek_name_long_check(entry, form, (size_t)n);
}

/*
 * The entry's plain name, "" when it can't be known without a key. False: it is no good entry, and was dealt with.
 */
static bool check_name(struct walk *walk, const struct place *place, const struct cmek_secret *key, const char *name,
		       char plain[CMEK_PLAIN_NAME_MAX + 1])
{
	char form[CMEK_STORED_FORM_MAX + 2], link[CMEK_LONG_HASH_LEN + 3];
	bool is_long = cmek_name_kind(name) == CMEK_STORE_NAME_LONG;
	enum cmek_fsck_code code = CMEK_FSCK_NAME_BAD;
	int ret = 0;

	plain[0] = '\0';
	if (is_long)
		ret = read_long(place, name, form, &code);
	if (!ret && key) {
		code = CMEK_FSCK_NAME_BAD;
		ret = decrypt(walk, place, key, is_long ? form : name, plain);
	}
	if (!ret)
		return true;
	if (walk->visit)
		return false;
	tell_entry(walk, place, name, code, NULL, NULL);
	if (is_long && !place->leave && cmek_fsck_may_fix(&walk->fsck->findings, code)) {
		cmek_name_link_of(name, link);
		(void)unlinkat(place->fd, link, 0); /* it has no entry any more; the next run tells if it stays */
	}
	return false;
}

/* Whether there are several names and none of them opens. */
static bool none_opens(struct walk *walk, const struct place *place, const struct cmek_secret *key)
{
	char plain[CMEK_PLAIN_NAME_MAX + 1];
	size_t i, n = 0;

	for (i = 0; i < place->n_names; i++) {
		if (cmek_name_kind(place->names[i]) != CMEK_STORE_NAME_SHORT)
			continue;
		if (!decrypt(walk, place, key, place->names[i], plain))
			return false;
		n++;
	}
	return n > 1;
}

/* The link of a long name; its entry, if it has one, is checked on its own. */
static void check_link(struct walk *walk, const struct place *place, const char *name)
{
	char entry[CMEK_LONG_HASH_LEN + 3], *stored;
	bool fixed = false;
	struct stat st;

	if (fstatat(place->fd, name, &st, AT_SYMLINK_NOFOLLOW))
		return; /* it went along with its entry */
	if (!S_ISLNK(st.st_mode)) {
		tell_entry(walk, place, name, CMEK_FSCK_TYPE, NULL, NULL);
		return;
	}
	snprintf(entry, sizeof(entry), "%s", name);
	entry[strlen(entry) - 1] = 'n';
	if (!fstatat(place->fd, entry, &st, AT_SYMLINK_NOFOLLOW) || errno != ENOENT)
		return;
	if (cmek_fsck_may_fix(&walk->fsck->findings, CMEK_FSCK_LINK_ALONE))
		fixed = unlinkat(place->fd, name, 0) == 0;
	stored = join(place->stored, name);
	cmek_fsck_tell(&walk->fsck->findings, CMEK_FSCK_LINK_ALONE, stored ? stored : name, NULL, fixed, NULL);
	free(stored);
}

/* All of E: what the text has, and the pieces. 0 or what is wrong. */
static const char *gather(struct walk *walk, const struct cmek_symlink_head *head, char e[CMEK_SYMLINK_E_MAX + 1])
{
	uint32_t max = walk->fsck->hdr->symlink_max;
	char name[CMEK_SYMLINK_PIECE_NAME], path[CMEK_SYMLINK_PIECE_NAME + 8], text[CMEK_SYMLINK_TEXT_MAX + 1];
	size_t off, len;
	unsigned k;

	memcpy(e, head->e, head->e_here);
	for (k = 1; k <= cmek_symlink_n_pieces(head, max); k++) {
		cmek_symlink_piece(head, max, k, name, &off, &len);
		snprintf(path, sizeof(path), "links/%s", name);
		if (readlinkat(walk->fsck->meta_fd, path, text, sizeof(text)) != (ssize_t)len)
			return "a piece of it is missing";
		memcpy(e + off, text, len);
	}
	return NULL;
}

static void check_symlink(struct walk *walk, const struct place *place, const char *name, const char *plain)
{
	char text[CMEK_SYMLINK_TEXT_MAX + 2], e[CMEK_SYMLINK_E_MAX + 1], target[CMEK_SYMLINK_TARGET_MAX];
	ssize_t n = readlinkat(place->fd, name, text, sizeof(text) - 1);
	struct cmek_secret *key = NULL;
	struct cmek_symlink_head head;
	const char *wrong = NULL;
	size_t len;
	int ret;

	walk->fsck->symlinks++;
	if (n >= 0)
		text[n] = '\0';
	if (n < 0 || cmek_symlink_parse(text, (size_t)n, walk->fsck->hdr->symlink_max, &head)) {
		tell_entry(walk, place, name, CMEK_FSCK_SYMLINK_BAD, plain, "its text makes no sense");
		return;
	}
	if (head.split)
		(void)remember(&walk->link_ids, head.id, strlen(head.id) + 1, compare_texts); /* whether it is new: no matter */
	wrong = gather(walk, &head, e);
	if (!wrong && walk->fsck->ring) {
		ret = cmek_keyring_symlink_key(walk->fsck->ring, head.dek, &key);
		if (ret) {
			tell_entry(walk, place, name, ret == -ENOKEY ? CMEK_FSCK_DEK_UNKNOWN : CMEK_FSCK_DEK_RETIRED, plain,
				   NULL);
			return;
		}
		if (cmek_symlink_decrypt(key, e, head.e_len, target, &len))
			wrong = "it does not authenticate";
		cmek_secret_free(key);
	}
	if (wrong)
		tell_entry(walk, place, name, CMEK_FSCK_SYMLINK_BAD, plain, wrong);
}

static int handle_file(struct walk *walk, const struct place *place, const char *name, const char *stored,
		       const char *plain, const struct stat *st)
{
	const struct cmek_fsck_file file = {
		.dir_fd = place->fd,
		.name = name,
		.stored = stored,
		.plain = plain,
		.size = (uint64_t)st->st_size,
		.ino = st->st_ino,
		.links = (unsigned)st->st_nlink,
	};

	if (walk->visit)
		return walk->visit(walk->arg, &file);
	walk->fsck->files++;
	walk->fsck->stored_bytes += file.size;
	if (walk->fsck->ring && !walk->fsck->stale && cmek_fsck_first_page(walk->fsck, &file))
		tell_entry(walk, place, name, CMEK_FSCK_FIRST_PAGE, plain, NULL);
	return 0;
}

static int walk_place(struct walk *walk, struct place *place, const struct place *parent, const char *name,
		      struct cmek_error *err);

static int handle_dir(struct walk *walk, const struct place *parent, const char *name, char **stored, char **plain,
		      struct cmek_error *err)
{
	struct place place = { .fd = openat(parent->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) };
	int ret;

	place.stored = *stored;
	place.plain = *plain;
	*stored = *plain = NULL;
	if (place.fd < 0 && errno == EMFILE)
		ret = cmek_error_sys(err, EMFILE, "%s", place.stored);
	else if (place.fd < 0) {
		ret = 0;
		walk->unsure = true;
		cmek_fsck_tell(&walk->fsck->findings, CMEK_FSCK_UNREADABLE, place.stored, place.plain, false, "%s",
			       strerror(errno));
	} else {
		ret = walk_place(walk, &place, parent, name, err);
	}
	place_done(&place);
	return ret;
}

/* An entry with a good name. */
static int handle_entry(struct walk *walk, const struct place *place, const char *name, const char *plain_name,
			struct cmek_error *err)
{
	char *stored = join(place->stored, name), *plain = NULL;
	struct stat st;
	int ret = 0;

	if (plain_name[0] && place->plain)
		plain = join(place->plain, plain_name);
	if (!stored || (plain_name[0] && place->plain && !plain)) {
		ret = cmek_error_sys(err, ENOMEM, "the path of an entry");
	} else if (fstatat(place->fd, name, &st, AT_SYMLINK_NOFOLLOW)) {
		walk->unsure = true;
		if (!walk->visit)
			cmek_fsck_tell(&walk->fsck->findings, CMEK_FSCK_UNREADABLE, stored, plain, false, "%s",
				       strerror(errno));
	} else if (S_ISDIR(st.st_mode)) {
		ret = handle_dir(walk, place, name, &stored, &plain, err);
	} else if (S_ISREG(st.st_mode)) {
		ret = handle_file(walk, place, name, stored, plain, &st);
		if (ret)
			(void)cmek_error_sys(err, -ret, "%s", stored); /* the first one counts */
	} else if (S_ISLNK(st.st_mode)) {
		if (!walk->visit)
			check_symlink(walk, place, name, plain);
	} else {
		walk->fsck->others += !walk->visit;
	}
	free(stored);
	free(plain);
	return ret;
}

static bool is_own(const struct place *place, const char *name)
{
	if (!strcmp(name, CMEK_DIR_ID_NAME))
		return true;
	return !place->stored[0] && (!strcmp(name, CMEK_META_DIR) || !strcmp(name, "lost+found"));
}

static int handle_name(struct walk *walk, const struct place *place, const struct cmek_secret *key, const char *name,
		       struct cmek_error *err)
{
	char plain[CMEK_PLAIN_NAME_MAX + 1];

	if (is_own(place, name))
		return 0;
	switch (cmek_name_kind(name)) {
	case CMEK_STORE_NAME_SHORT:
	case CMEK_STORE_NAME_LONG:
		return check_name(walk, place, key, name, plain) ? handle_entry(walk, place, name, plain, err) : 0;
	case CMEK_STORE_NAME_LINK:
		if (!walk->visit)
			check_link(walk, place, name);
		return 0;
	default:
		if (!walk->visit)
			tell_entry(walk, place, name, CMEK_FSCK_FOREIGN, NULL, NULL);
		return 0;
	}
}

/* Tells of a directory as a whole. True: it was moved away. */
static bool tell_dir(struct walk *walk, const struct place *place, const struct place *parent, const char *name,
		     enum cmek_fsck_code code)
{
	unsigned fixed = walk->fsck->findings.fixed;

	if (walk->visit)
		return false;
	if (parent) {
		tell_entry(walk, parent, name, code, place->plain, NULL);
		return walk->fsck->findings.fixed > fixed;
	}
	cmek_fsck_tell(&walk->fsck->findings, code, ".", place->plain, false, NULL);
	return false;
}

/* parent and name: of the directory's own entry; NULL for the root. */
static int walk_place(struct walk *walk, struct place *place, const struct place *parent, const char *name,
		      struct cmek_error *err)
{
	struct cmek_secret *key;
	size_t i;
	int ret = read_names(place);

	if (ret == -ENOMEM)
		return cmek_error_sys(err, ENOMEM, "the names of a directory");
	if (ret) {
		walk->unsure = true;
		if (!walk->visit)
			cmek_fsck_tell(&walk->fsck->findings, CMEK_FSCK_UNREADABLE, place->stored, place->plain, false, "%s",
				       strerror(-ret));
		return 0;
	}
	walk->fsck->dirs += !walk->visit;
	ret = cmek_dir_id_read(place->fd, &place->id);
	place->has_id = !ret;
	if (ret == -EBADMSG && tell_dir(walk, place, parent, name, CMEK_FSCK_DIR_BAD_ID))
		return 0;
	if (ret == -ENOENT && has_entries(place) && tell_dir(walk, place, parent, name, CMEK_FSCK_DIR_NO_ID))
		return 0;
	if (place->has_id && !walk->visit && !remember(&walk->dir_ids, place->id.id, CMEK_DIR_ID_LEN, compare_ids))
		(void)tell_dir(walk, place, parent, name, CMEK_FSCK_DIR_TWIN_ID); /* is never moved */
	key = name_key(walk, place);
	/* Without a name key users' paths end here. */
	if (!key) {
		free(place->plain);
		place->plain = NULL;
	}
	place->leave = key && none_opens(walk, place, key);
	for (ret = 0, i = 0; !ret && i < place->n_names; i++)
		ret = handle_name(walk, place, key, place->names[i], err);
	cmek_secret_free(key);
	return ret;
}

/* Links that were moved to lost still have their pieces. False: there are directories, whose links are not known. */
static bool remember_lost(struct walk *walk)
{
	int fd = openat(walk->fsck->meta_fd, "lost", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	char text[CMEK_SYMLINK_TEXT_MAX + 2];
	struct cmek_symlink_head head;
	struct dirent *entry;
	bool known = true;
	struct stat st;
	ssize_t n;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return fd < 0;
	}
	while (known && (entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		known = !fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) && !S_ISDIR(st.st_mode);
		n = known ? readlinkat(dirfd(dir), entry->d_name, text, sizeof(text) - 1) : -1;
		if (n < 0)
			continue;
		text[n] = '\0';
		if (!cmek_symlink_parse(text, (size_t)n, walk->fsck->hdr->symlink_max, &head) && head.split)
			(void)remember(&walk->link_ids, head.id, strlen(head.id) + 1, compare_texts);
	}
	closedir(dir);
	return known;
}

/* Pieces of links that are gone: a crash leaves them, they are made before their link. */
static int check_pieces(struct walk *walk, struct cmek_error *err)
{
	int fd = openat(walk->fsck->meta_fd, "links", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	char id[CMEK_SYMLINK_ID_LEN + 1], stored[300];
	struct dirent *entry;
	bool fixed;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return fd < 0 ? 0 : cmek_error_sys(err, errno, CMEK_META_DIR "/links");
	}
	while ((entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(id, sizeof(id), "%.*s", CMEK_SYMLINK_ID_LEN, entry->d_name);
		if (tfind(id, &walk->link_ids, compare_texts))
			continue;
		fixed = cmek_fsck_may_fix(&walk->fsck->findings, CMEK_FSCK_PIECE_ALONE) &&
			unlinkat(dirfd(dir), entry->d_name, 0) == 0;
		snprintf(stored, sizeof(stored), CMEK_META_DIR "/links/%s", entry->d_name);
		cmek_fsck_tell(&walk->fsck->findings, CMEK_FSCK_PIECE_ALONE, stored, NULL, fixed, NULL);
	}
	closedir(dir);
	return 0;
}

static int walk_root(struct walk *walk, struct cmek_error *err)
{
	struct place root = { .fd = openat(walk->fsck->store_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) };
	int ret;

	root.stored = strdup("");
	root.plain = strdup("/");
	if (root.fd < 0)
		ret = cmek_error_sys(err, errno, "%s", walk->fsck->path);
	else if (!root.stored || !root.plain)
		ret = cmek_error_sys(err, ENOMEM, "the path of an entry");
	else
		ret = walk_place(walk, &root, NULL, NULL, err);
	place_done(&root);
	return ret;
}

int cmek_fsck_tree(struct cmek_fsck *fsck, struct cmek_error *err)
{
	struct walk walk = { .fsck = fsck };
	int ret = walk_root(&walk, err);

	if (!ret && !walk.unsure && remember_lost(&walk))
		ret = check_pieces(&walk, err);
	tdestroy(walk.dir_ids, free);
	tdestroy(walk.link_ids, free);
	return ret;
}

int cmek_fsck_each_file(struct cmek_fsck *fsck, int (*visit)(void *arg, const struct cmek_fsck_file *file), void *arg,
			struct cmek_error *err)
{
	struct walk walk = { .fsck = fsck, .visit = visit, .arg = arg };

	return walk_root(&walk, err);
}
