/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Makes a volume's directories and files in a store so that a crash leaves nothing or all of it. Knows no KMS and draws
 * no key: the header comes ready.
 */
#include "config.h"

#include "fs/volume/mkvol.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/text.h"
#include "fs/volume/keyring.h"

#define TMP_PREFIX CMEK_META_DIR ".tmp-"
#define TMP_RANDOM 4
#define TMP_NAME_LEN (sizeof(TMP_PREFIX) - 1 + CMEK_HEX_LEN(TMP_RANDOM))
#define NAME_LEN 255 /* the longest stored name: doc/format.md section 4.2 */
#define ROOT_LINK_LEN 30

struct cmek_mkvol {
	char *path;
	int parent_fd;  /* of the directory above, while STORE is missing; else -1 */
	char *base;     /* STORE's name in it */
	int store_fd;   /* -1 while STORE is missing */
	bool made_store;
	char tmp[TMP_NAME_LEN + 1]; /* "" = none */
	int tmp_fd;
	bool made_link;
	bool committed;
	struct cmek_report report;
};

static int open_dir_at(int fd, const char *name)
{
	int dir = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return dir < 0 ? -errno : dir;
}

/* A stream over a directory that is open as fd, which stays open. */
static DIR *stream_of(int fd)
{
	int again = open_dir_at(fd, ".");
	DIR *dir = again >= 0 ? fdopendir(again) : NULL;

	if (!dir && again >= 0)
		close(again);
	return dir;
}

static bool is_dot(const char *name)
{
	return !strcmp(name, ".") || !strcmp(name, "..");
}

static bool is_tmp_name(const char *name)
{
	uint8_t random[TMP_RANDOM];
	size_t prefix = sizeof(TMP_PREFIX) - 1;

	return strlen(name) == TMP_NAME_LEN && !strncmp(name, TMP_PREFIX, prefix) &&
	       cmek_hex_decode(name + prefix, TMP_NAME_LEN - prefix, random, sizeof(random)) == TMP_RANDOM;
}

/* What is in a directory under construction: files (empty directories) of these names, and cmek_replace_file()'s. */
static bool is_built_file(const char *name)
{
	size_t len = strlen(name);

	return !strcmp(name, "header.0") || !strcmp(name, "header.1") || !strcmp(name, "lock") ||
	       !strcmp(name, "journal.0") || !strcmp(name, "probe") || cmek_volhdr_is_temporary(name) ||
	       (len == NAME_LEN && strspn(name, "n") == NAME_LEN);
}

static bool is_built_dir(const char *name)
{
	return !strcmp(name, "links") || !strcmp(name, "lost");
}

/* Removes the directory under construction; with `dry`, says whether everything in it is of our making (-ENOTEMPTY). */
static int remove_tmp(int store_fd, const char *name, bool dry)
{
	int fd = open_dir_at(store_fd, name), ret = 0;
	struct dirent *entry;
	DIR *dir;

	if (fd < 0)
		return fd;
	dir = stream_of(fd);
	if (!dir)
		ret = -errno;
	while (!ret && (entry = readdir(dir))) {
		if (is_dot(entry->d_name))
			continue;
		if (!is_built_file(entry->d_name) && !is_built_dir(entry->d_name))
			ret = -ENOTEMPTY;
		else if (!dry && unlinkat(fd, entry->d_name, is_built_dir(entry->d_name) ? AT_REMOVEDIR : 0))
			ret = -errno;
	}
	if (dir)
		closedir(dir);
	close(fd);
	if (!ret && !dry && unlinkat(store_fd, name, AT_REMOVEDIR))
		ret = -errno;
	return ret;
}

/* The store is a volume already: says which. */
static int refuse_volume(const struct cmek_mkvol *mk, struct cmek_error *err)
{
	struct cmek_volhdr_store *store = NULL;
	struct cmek_error why = CMEK_ERROR_INIT;
	const struct cmek_volhdr *hdr;
	char uuid[CMEK_UUID_TEXT];
	int ret;

	if (cmek_volhdr_store_open(mk->store_fd, CMEK_STORE_PEEK, NULL, &store, &why))
		return cmek_error_set(err, CMEK_E_EXISTS, EEXIST, "%s already has a volume, though a damaged one: %s",
				      mk->path, why.text);
	hdr = cmek_volhdr_store_header(store);
	cmek_uuid_encode(hdr->uuid, uuid);
	ret = cmek_error_set(err, CMEK_E_EXISTS, EEXIST, "%s already is a cmekfs volume: UUID %s%s%s%s", mk->path, uuid,
			     hdr->label[0] ? ", label \"" : "", hdr->label, hdr->label[0] ? "\"" : "");
	cmek_volhdr_store_close(store);
	return ret;
}

/* What a look at the store found. */
struct found {
	bool volume, root_link, leftovers;
	char other[NAME_MAX + 1];  /* an entry that is none of ours */
	char tmp[NAME_MAX + 1];    /* a directory under construction that holds something else */
};

static int look(const struct cmek_mkvol *mk, struct found *found, struct cmek_error *err)
{
	DIR *dir = stream_of(mk->store_fd);
	struct dirent *entry;
	int ret = 0;

	if (!dir)
		return cmek_error_sys(err, errno, "can't list %s", mk->path);
	for (;;) {
		errno = 0;
		entry = readdir(dir);
		if (!entry) {
			if (errno)
				ret = cmek_error_sys(err, errno, "can't list %s", mk->path);
			break;
		}
		if (is_dot(entry->d_name) || !strcmp(entry->d_name, "lost+found"))
			continue;
		if (!strcmp(entry->d_name, CMEK_META_DIR)) {
			found->volume = true;
		} else if (!strcmp(entry->d_name, CMEK_ROOT_LINK)) {
			found->root_link = true;
		} else if (!is_tmp_name(entry->d_name)) {
			snprintf(found->other, sizeof(found->other), "%s", entry->d_name);
		} else if (remove_tmp(mk->store_fd, entry->d_name, true)) {
			snprintf(found->tmp, sizeof(found->tmp), "%s", entry->d_name);
		} else {
			found->leftovers = true;
		}
	}
	closedir(dir);
	return ret;
}

/* The root's id link, by its form; anything else of that name is not ours to remove. */
static bool is_root_link(int store_fd)
{
	char text[ROOT_LINK_LEN + 2];
	ssize_t n = readlinkat(store_fd, CMEK_ROOT_LINK, text, sizeof(text));

	return n == ROOT_LINK_LEN && !memcmp(text, "v1:", 3);
}

static int judge(const struct cmek_mkvol *mk, const struct found *found, bool force, struct cmek_error *err)
{
	if (found->volume)
		return refuse_volume(mk, err);
	if (found->other[0])
		return cmek_error_set(
			err, CMEK_E_EXISTS, ENOTEMPTY, "%s is not empty: it has \"%s\"%s", mk->path, found->other,
			found->root_link ? ", and looks like a volume that has lost its " CMEK_META_DIR : "");
	if (found->tmp[0])
		return cmek_error_set(
			err, CMEK_E_EXISTS, ENOTEMPTY,
			"%s/%s is named like the left-over of an interrupted mkfs.cmekfs, but holds something else",
			mk->path, found->tmp);
	if (!found->root_link)
		return 0;
	if (!is_root_link(mk->store_fd))
		return cmek_error_set(err, CMEK_E_EXISTS, ENOTEMPTY, "%s has a " CMEK_ROOT_LINK " that no cmekfs made",
				      mk->path);
	if (!found->leftovers && !force)
		return cmek_error_set(err, CMEK_E_EXISTS, EUCLEAN,
				      "%s has a " CMEK_ROOT_LINK " and nothing else: a volume without files that has "
				      "lost its " CMEK_META_DIR, mk->path);
	return 0;
}

/* Keeps a second mkfs out. Some network file systems can't do that for a directory: there it is left out. */
static int lock_store(const struct cmek_mkvol *mk, struct cmek_error *err)
{
	if (flock(mk->store_fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
		return cmek_error_set(err, CMEK_E_BUSY, EBUSY, "another mkfs.cmekfs is at work in %s", mk->path);
	return 0;
}

/* STORE is missing: it will be made, one level. */
static int open_parent(struct cmek_mkvol *mk, struct cmek_error *err)
{
	char *slash = strrchr(mk->path, '/');
	const char *above = slash ? (slash == mk->path ? "/" : mk->path) : ".";

	mk->base = strdup(slash ? slash + 1 : mk->path);
	if (!mk->base)
		return cmek_error_sys(err, ENOMEM, "%s", mk->path);
	if (slash && slash != mk->path)
		*slash = '\0';
	mk->parent_fd = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (slash && slash != mk->path)
		*slash = '/';
	if (mk->parent_fd < 0 && errno == ENOENT)
		return cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT, "the directory above %s does not exist", mk->path);
	if (mk->parent_fd < 0)
		return cmek_error_sys(err, errno, "can't open the directory above %s", mk->path);
	return 0;
}

static bool is_same_dir(int a, int b)
{
	struct stat of_a, of_b;

	return !fstat(a, &of_a) && !fstat(b, &of_b) && of_a.st_dev == of_b.st_dev && of_a.st_ino == of_b.st_ino;
}

/* The first directory from fd upward that is a store. What can't be looked into ends the search, and is none. */
static bool lies_in_a_store(int fd)
{
	int dir = openat(fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC), up;
	bool found = false;
	struct stat st;

	while (dir >= 0 && !found) {
		found = !fstatat(dir, CMEK_META_DIR "/header.0", &st, AT_SYMLINK_NOFOLLOW) ||
			!fstatat(dir, CMEK_META_DIR "/header.1", &st, AT_SYMLINK_NOFOLLOW);
		up = openat(dir, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (up >= 0 && is_same_dir(dir, up)) {
			close(up);
			up = -1;
		}
		close(dir);
		dir = up;
	}
	if (dir >= 0)
		close(dir);
	return found;
}

static int refuse_inside(const struct cmek_mkvol *mk, int fd, struct cmek_error *err)
{
	if (!lies_in_a_store(fd))
		return 0;
	return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "%s lies in the store of another volume", mk->path);
}

static int open_store(struct cmek_mkvol *mk, bool force, struct cmek_error *err)
{
	struct found found = { 0 };
	int ret, up;

	mk->store_fd = open(mk->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (mk->store_fd < 0) {
		if (errno == ENOENT) {
			ret = open_parent(mk, err);
			return ret ? ret : refuse_inside(mk, mk->parent_fd, err);
		}
		if (errno == ENOTDIR)
			return cmek_error_set(err, CMEK_E_USAGE, ENOTDIR, "%s is not a directory", mk->path);
		return cmek_error_sys(err, errno, "can't open %s", mk->path);
	}
	ret = lock_store(mk, err);
	if (!ret)
		ret = look(mk, &found, err);
	if (!ret)
		ret = judge(mk, &found, force, err);
	up = ret ? -1 : openat(mk->store_fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (up >= 0) {
		ret = refuse_inside(mk, up, err);
		close(up);
	}
	return ret;
}

int cmek_mkvol_open(const char *store_path, bool force, const struct cmek_report *report,
		    struct cmek_mkvol **ret_mk, struct cmek_error *err)
{
	struct cmek_mkvol *mk = calloc(1, sizeof(*mk));
	size_t len = strlen(store_path);
	int ret;

	if (!mk)
		return cmek_error_sys(err, ENOMEM, "%s", store_path);
	mk->parent_fd = mk->store_fd = mk->tmp_fd = -1;
	if (report)
		mk->report = *report;
	while (len > 1 && store_path[len - 1] == '/')
		len--;
	mk->path = strndup(store_path, len);
	if (!mk->path)
		ret = cmek_error_sys(err, ENOMEM, "%s", store_path);
	else if (!len)
		ret = cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the path of the store is empty");
	else
		ret = open_store(mk, force, err);
	if (ret) {
		cmek_mkvol_close(mk);
		return ret;
	}
	*ret_mk = mk;
	return 0;
}

void cmek_mkvol_close(struct cmek_mkvol *mk)
{
	if (!mk)
		return;
	if (!mk->committed) {
		/* Best effort: what stays is recognised by the next run. */
		if (mk->made_link)
			(void)unlinkat(mk->store_fd, CMEK_ROOT_LINK, 0);
		if (mk->tmp[0])
			(void)remove_tmp(mk->store_fd, mk->tmp, false);
		if (mk->made_store)
			(void)unlinkat(mk->parent_fd, mk->base, AT_REMOVEDIR);
	}
	if (mk->tmp_fd >= 0)
		close(mk->tmp_fd);
	if (mk->store_fd >= 0)
		close(mk->store_fd);
	if (mk->parent_fd >= 0)
		close(mk->parent_fd);
	free(mk->base);
	free(mk->path);
	free(mk);
}

int cmek_mkvol_dir(const struct cmek_mkvol *mk)
{
	return mk->tmp_fd;
}

const char *cmek_mkvol_path(const struct cmek_mkvol *mk)
{
	return mk->path;
}

bool cmek_mkvol_committed(const struct cmek_mkvol *mk)
{
	return mk->committed;
}

static int make_store(struct cmek_mkvol *mk, struct cmek_error *err)
{
	int fd;

	if (mkdirat(mk->parent_fd, mk->base, 0700))
		return cmek_error_sys(err, errno, "can't make %s", mk->path);
	mk->made_store = true;
	fd = open_dir_at(mk->parent_fd, mk->base);
	if (fd < 0)
		return cmek_error_sys(err, -fd, "can't open %s", mk->path);
	mk->store_fd = fd;
	return lock_store(mk, err);
}

/* The link first: without a directory under construction beside it, it would not be known for a left-over. */
static int remove_leftovers(struct cmek_mkvol *mk, struct cmek_error *err)
{
	struct dirent *entry;
	DIR *dir;
	int ret = 0;

	if (is_root_link(mk->store_fd) && unlinkat(mk->store_fd, CMEK_ROOT_LINK, 0))
		return cmek_error_sys(err, errno, "can't remove %s/" CMEK_ROOT_LINK, mk->path);
	dir = stream_of(mk->store_fd);
	if (!dir)
		return cmek_error_sys(err, errno, "can't list %s", mk->path);
	while (!ret && (entry = readdir(dir))) {
		if (!is_tmp_name(entry->d_name))
			continue;
		ret = remove_tmp(mk->store_fd, entry->d_name, false);
		if (ret)
			cmek_error_sys(err, -ret, "can't remove %s/%s", mk->path, entry->d_name);
		else
			cmek_report(&mk->report, "removed %s, left over by an interrupted run", entry->d_name);
	}
	closedir(dir);
	return ret;
}

static int make_tmp(struct cmek_mkvol *mk, struct cmek_error *err)
{
	uint8_t random[TMP_RANDOM];
	char name[TMP_NAME_LEN + 1] = TMP_PREFIX;
	int fd;

	cmek_random(random, sizeof(random));
	cmek_hex_encode(random, sizeof(random), name + sizeof(TMP_PREFIX) - 1);
	if (mkdirat(mk->store_fd, name, 0700))
		return cmek_error_sys(err, errno, "can't make a directory in %s", mk->path);
	memcpy(mk->tmp, name, sizeof(mk->tmp));
	fd = open_dir_at(mk->store_fd, name);
	if (fd < 0)
		return cmek_error_sys(err, -fd, "can't open %s/%s", mk->path, name);
	mk->tmp_fd = fd;
	return 0;
}

/* 0: a symlink with a text of len bytes can be made and read; -ENAMETOOLONG: too long; other -errno. */
static int probe_symlink(int fd, size_t len)
{
	char text[CMEK_SYMLINK_TEXT_MAX + 1], back[CMEK_SYMLINK_TEXT_MAX + 1];
	ssize_t n;

	memset(text, 'x', len);
	text[len] = '\0';
	if (symlinkat(text, fd, "probe"))
		return errno == EINVAL ? -ENAMETOOLONG : -errno;
	n = readlinkat(fd, "probe", back, sizeof(back));
	if (unlinkat(fd, "probe", 0))
		return -errno;
	return n == (ssize_t)len && !memcmp(text, back, len) ? 0 : -ENAMETOOLONG;
}

static int probe_symlink_max(struct cmek_mkvol *mk, uint32_t *ret_max, struct cmek_error *err)
{
	uint32_t fits = CMEK_SYMLINK_TEXT_MIN, too_long = CMEK_SYMLINK_TEXT_MAX + 1, half;
	int ret = probe_symlink(mk->tmp_fd, fits);

	if (ret == -ENAMETOOLONG)
		return cmek_error_set(err, CMEK_E_UNSUPPORTED, ENOTSUP,
				      "the file system of %s does not take symbolic links of %d bytes", mk->path,
				      CMEK_SYMLINK_TEXT_MIN);
	if (ret == -EPERM || ret == -EOPNOTSUPP || ret == -ENOSYS)
		return cmek_error_set(err, CMEK_E_UNSUPPORTED, ENOTSUP, "the file system of %s has no symbolic links",
				      mk->path);
	half = CMEK_SYMLINK_TEXT_MAX; /* most take all that Linux does: asked first */
	while (!ret && fits + 1 < too_long) {
		ret = probe_symlink(mk->tmp_fd, half);
		if (!ret)
			fits = half;
		else if (ret == -ENAMETOOLONG)
			too_long = half;
		else
			break;
		ret = 0;
		half = fits + (too_long - fits) / 2;
	}
	if (ret)
		return cmek_error_sys(err, -ret, "can't make a symbolic link in %s", mk->path);
	*ret_max = fits;
	return 0;
}

/* Makes an empty file; *ret_fd may be NULL. */
static int make_file(int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600), ret;

	if (fd < 0)
		return -errno;
	ret = fsync(fd) ? -errno : 0;
	close(fd);
	return ret;
}

static int probe_names(struct cmek_mkvol *mk, struct cmek_error *err)
{
	char name[NAME_LEN + 1];
	struct stat st;
	int ret;

	memset(name, 'n', NAME_LEN);
	name[NAME_LEN] = '\0';
	ret = make_file(mk->tmp_fd, name);
	if (ret == -ENAMETOOLONG || ret == -EINVAL)
		return cmek_error_set(err, CMEK_E_UNSUPPORTED, ENOTSUP,
				      "the file system of %s does not take names of %d bytes", mk->path, NAME_LEN);
	if (ret)
		return cmek_error_sys(err, -ret, "can't make a file in %s", mk->path);
	name[0] = 'N';
	if (!fstatat(mk->tmp_fd, name, &st, AT_SYMLINK_NOFOLLOW))
		return cmek_error_set(err, CMEK_E_UNSUPPORTED, ENOTSUP,
				      "the file system of %s does not tell upper from lower case in names", mk->path);
	name[0] = 'n';
	if (unlinkat(mk->tmp_fd, name, 0))
		return cmek_error_sys(err, errno, "can't remove a file in %s", mk->path);
	return 0;
}

/* The path as other programs will see it. */
static int make_path_absolute(struct cmek_mkvol *mk, struct cmek_error *err)
{
	char *path = realpath(mk->path, NULL);

	if (!path)
		return cmek_error_sys(err, errno, "can't resolve %s", mk->path);
	free(mk->path);
	mk->path = path;
	return 0;
}

int cmek_mkvol_prepare(struct cmek_mkvol *mk, uint32_t *ret_symlink_max, struct cmek_error *err)
{
	int ret = mk->store_fd < 0 ? make_store(mk, err) : 0;

	if (!ret)
		ret = make_path_absolute(mk, err);
	if (!ret)
		ret = remove_leftovers(mk, err);
	if (!ret)
		ret = make_tmp(mk, err);
	if (!ret)
		ret = probe_names(mk, err);
	if (!ret)
		ret = probe_symlink_max(mk, ret_symlink_max, err);
	return ret;
}

/* The root's id: doc/format.md section 4.1. */
static int make_root_link(struct cmek_mkvol *mk, uint16_t dek)
{
	uint8_t id[CMEK_DIR_ID_LEN];
	char text[ROOT_LINK_LEN + 1], id_text[CMEK_B64URL_LEN(CMEK_DIR_ID_LEN) + 1];

	cmek_random(id, sizeof(id));
	cmek_b64url_encode(id, sizeof(id), id_text);
	snprintf(text, sizeof(text), "v1:%04x:%s", dek, id_text);
	if (symlinkat(text, mk->store_fd, CMEK_ROOT_LINK))
		return -errno;
	mk->made_link = true;
	return 0;
}

static int sync_fd(int fd)
{
	return fsync(fd) ? -errno : 0;
}

int cmek_mkvol_commit(struct cmek_mkvol *mk, const struct cmek_volhdr *hdr, const struct cmek_secret *mac_key,
		      uint16_t dek, struct cmek_error *err)
{
	int ret = cmek_volhdr_store_create(mk->tmp_fd, hdr, mac_key, err);

	if (ret)
		return ret;
	ret = make_file(mk->tmp_fd, "lock");
	if (!ret && (mkdirat(mk->tmp_fd, "links", 0700) || mkdirat(mk->tmp_fd, "lost", 0700)))
		ret = -errno;
	if (!ret)
		ret = sync_fd(mk->tmp_fd);
	if (!ret)
		ret = make_root_link(mk, dek);
	if (!ret)
		ret = sync_fd(mk->store_fd);
	if (!ret && mk->parent_fd >= 0)
		ret = sync_fd(mk->parent_fd);
	if (!ret && renameat(mk->store_fd, mk->tmp, mk->store_fd, CMEK_META_DIR))
		ret = -errno;
	if (ret)
		return cmek_error_sys(err, -ret, "can't make the volume in %s", mk->path);
	mk->committed = true;
	ret = sync_fd(mk->store_fd);
	if (ret)
		return cmek_error_sys(err, -ret, "the volume in %s is made, but could not be flushed to the disk",
				      mk->path);
	return 0;
}
