/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Moves the names of a directory, and the targets of its symlinks, to the active data key while the volume is in use. From
 * when the directory's id names both keys, new entries are under the new one, and who looks for a name tries both; entry
 * by entry is renamed, and when there is none left the id names the new key alone. Knows no contents.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/tree/tree_impl.h"

#define SCAN_BUF 32768
/* What was renamed can turn up again behind the scan, or be passed over by it: so it is scanned again, at most so often. */
#define MAX_SCANS 16

struct moving {
	struct cmek_tree *tree;
	struct cmek_tree_dir dir;
	struct cmek_tree_place place; /* its dir is a copy of dir; for the entry at hand */
	struct cmek_tree_reencrypt *sum;
	uint64_t left; /* names that this scan found under another key and did not move */
	uint32_t version; /* of the directory, at the beginning */
	uint32_t scanned; /* the same, when the last scan began */
	bool untouched;   /* and, but for us, at the end */
};

/*
 * Whether the id that the store has is the one that is remembered; the directory is locked. -ESTALE: it was emptied and
 * removed, or is being so. -EBADMSG: somebody else has changed it.
 */
static int check_id_locked(struct moving *m)
{
	struct cmek_tree_census census;
	struct cmek_dir_id now;
	int r = cmek_dir_id_read(m->dir.fd.fd, &now);

	if (r == 0)
		return memcmp(&now, &m->dir.id, sizeof now) == 0 ? 0 : -EBADMSG;
	if (r != -ENOENT)
		return r;
	r = cmek_tree_census(m->tree, m->dir.fd.fd, false, &census);
	return r ? r : census.entries ? -EBADMSG : -ESTALE;
}

static int check_id(struct moving *m)
{
	struct cmek_tree_locks locks = { 0 };
	int r;

	cmek_tree_locks_add_dir(&locks, &m->dir.fd.node.key, false);
	cmek_tree_lock_dirs(m->tree, &locks);
	r = check_id_locked(m);
	cmek_tree_unlock(m->tree, &locks);
	return r;
}

static int find_old_locked(struct moving *m);

/*
 * Changes what the directory's id says of its keys. Nobody makes an entry meanwhile. -EAGAIN: there is a name under the old key,
 * which was to go.
 */
static int set_id(struct moving *m, uint16_t dek, uint16_t old_dek)
{
	struct cmek_tree_locks locks = { 0 };
	struct cmek_dir_id id = m->dir.id;
	char text[CMEK_DIR_ID_TEXT];
	int r = 0;

	id.dek = dek;
	id.old_dek = old_dek;
	cmek_dir_id_format(&id, text);
	/* Where the store does not keep the order: what was renamed is durable before nobody looks for its old name. */
	if (m->tree->flush_names && old_dek == 0)
		r = cmek_tree_fsyncdir(m->tree, m->dir.fd.node.number, false);
	if (r)
		return r;
	cmek_tree_locks_add_dir(&locks, &m->dir.fd.node.key, true);
	cmek_tree_lock_dirs(m->tree, &locks);
	r = check_id_locked(m);
	/*
	 * What is renamed over a name under the old key is under it, too, and may have another place in the directory from then
	 * on, as with btrfs: the scan can have passed it over.
	 */
	if (r == 0 && old_dek == 0 && m->scanned != cmek_tree_dir_version(m->tree, &m->dir.fd.node.key))
		r = find_old_locked(m);
	if (r == 0)
		r = cmek_tree_replace_link(m->tree, text, NULL, m->dir.fd.fd, CMEK_DIR_ID_NAME);
	if (r == 0 && m->dir.fd.ref)
		cmek_fd_ref_set_id(m->tree->dirs, m->dir.fd.ref, &id);
	cmek_tree_unlock(m->tree, &locks);
	if (r == 0)
		m->dir.id = m->place.dir.id = id;
	if (r == 0 && m->tree->flush_names && old_dek)
		r = cmek_tree_fsyncdir(m->tree, m->dir.fd.node.number, false);
	return r;
}

/* The name of an entry under one of the directory's keys, 0 = it has none such. -EBADMSG. */
static int open_name(struct moving *m, uint16_t dek, const char *form, size_t len, char ret_plain[CMEK_PLAIN_NAME_MAX + 1])
{
	struct cmek_secret *key = NULL;
	int r = dek ? cmek_keyring_name_key(m->tree->ring, dek, &key) : -EBADMSG;

	if (r == 0)
		r = cmek_name_decrypt(key, m->dir.id.id, form, len, ret_plain);
	cmek_secret_free(key);
	return r;
}

/* What is the entry called? 1: it is under the old key; 0: under the new one; -EBADMSG: under none of them. */
static int judge(struct moving *m, const char *entry, char ret_plain[CMEK_PLAIN_NAME_MAX + 1])
{
	char text[CMEK_STORED_FORM_MAX + 2], link[CMEK_LONG_HASH_LEN + 3];
	const char *form = entry;
	ssize_t n = (ssize_t)strlen(entry);
	int r;

	if (cmek_name_kind(entry) == CMEK_STORE_NAME_LONG) {
		cmek_name_link_of(entry, link);
		n = cmek_store_readlink(m->dir.fd.fd, link, text, sizeof text);
		if (n < 0)
			return n == -ENOENT || n == -EINVAL || n == -ENAMETOOLONG ? -EBADMSG : (int)n;
		r = cmek_name_long_check(entry, text, (size_t)n);
		if (r)
			return r;
		form = text;
	}
	r = open_name(m, m->dir.id.dek, form, (size_t)n, ret_plain);
	if (r != -EBADMSG)
		return r;
	r = open_name(m, m->dir.id.old_dek, form, (size_t)n, ret_plain);
	return r ? r : 1;
}

/* The entry is at place.names[1], and both names are locked. */
static int rename_locked(struct moving *m, const struct cmek_store_stat *st)
{
	struct cmek_tree_place *place = &m->place;
	int fd = m->dir.fd.fd, r;
	struct cmek_node_key key;
	struct cmek_node node;
	bool known;

	r = cmek_tree_key(st, fd, place->names[1].entry, &key);
	if (r)
		return r;
	place->name = &place->names[0];
	place->made_link = false;
	r = cmek_tree_place_make_link(m->tree, place);
	if (r)
		return r;
	known = cmek_node_find(m->tree->nodes, &key, &node) == 0;
	r = cmek_store_rename(fd, place->names[1].entry, fd, place->names[0].entry, 0);
	if (r == 0 && known)
		(void)cmek_node_set_hint(m->tree->nodes, node.number, m->dir.fd.node.number, place->names[0].entry);
	if (known)
		cmek_node_put(m->tree->nodes, node.number);
	if (r && !place->made_link)
		return r;
	if (r == 0)
		place->name = &place->names[1];
	cmek_tree_place_drop_link(m->tree, place);
	return r;
}

/*
 * Gives one entry its name under the new key. 0 also when it has gone, or can't be moved: then it counts as left, and
 * another scan finds it again.
 */
static int move_name(struct moving *m, const char *plain)
{
	struct cmek_tree_place *place = &m->place;
	struct cmek_tree_locks locks = { 0 };
	struct cmek_store_stat st, other;
	int r;

	place->n_names = 0;
	r = cmek_tree_place_name(m->tree, place, plain);
	if (r)
		return r;
	if (place->n_names < 2)
		return -ESTALE; /* the directory has lost its id */
	cmek_tree_place_lock(&locks, place);
	cmek_tree_lock_names(m->tree, &locks);
	r = cmek_store_stat(m->dir.fd.fd, place->names[1].entry, &st);
	if (r == -ENOENT) {
		r = 0;
		goto out;
	}
	if (r)
		goto out;
	/* Two entries for one name: nothing but damage makes them, and one would be lost. */
	if (cmek_store_stat(m->dir.fd.fd, place->names[0].entry, &other) != -ENOENT)
		r = -EEXIST;
	if (r == 0)
		r = cmek_tree_check_mount(m->tree, &st);
	if (r == 0)
		r = rename_locked(m, &st);
	if (r == 0) {
		m->sum->moved++;
	} else if (r == -EEXIST || r == -EXDEV || r == -EBUSY || r == -EPERM || r == -EACCES) {
		m->sum->left++;
		m->left++;
		r = 0;
	}
out:
	cmek_tree_unlock(m->tree, &locks);
	return r;
}

/* A name under no key of the directory, looked at once more while nobody may change it. */
static int count_bad(struct moving *m, const char *entry)
{
	char plain[CMEK_PLAIN_NAME_MAX + 1];
	struct cmek_tree_locks locks = { 0 };
	struct cmek_store_stat st;
	int r;

	cmek_tree_locks_add_name(&locks, &m->dir.fd.node.key, entry);
	cmek_tree_lock_names(m->tree, &locks);
	r = cmek_store_stat(m->dir.fd.fd, entry, &st);
	if (r == 0)
		r = judge(m, entry, plain);
	cmek_tree_unlock(m->tree, &locks);
	if (r == -EBADMSG) {
		m->sum->bad++;
		m->left++;
	} else if (r == 1) {
		m->left++; /* for the next scan */
	}
	return r == -EBADMSG || r == -ENOENT || r == 1 ? 0 : r;
}

static int look_at(struct moving *m, const struct dirent64 *d)
{
	enum cmek_store_name_kind kind = cmek_name_kind(d->d_name);
	char plain[CMEK_PLAIN_NAME_MAX + 1];
	const char *entry = d->d_name;
	int r;

	if (kind != CMEK_STORE_NAME_SHORT && kind != CMEK_STORE_NAME_LONG)
		return 0;
	if (m->dir.id.old_dek) {
		r = judge(m, entry, plain);
		if (r == -EBADMSG)
			return count_bad(m, entry);
		if (r == 1) {
			r = move_name(m, plain);
			entry = m->place.names[0].entry;
		}
		if (r)
			return r;
	}
	if (d->d_type != DT_LNK && d->d_type != DT_UNKNOWN)
		return 0;
	return cmek_tree_reencrypt_symlink(m->tree, &m->dir, entry, m->sum);
}

/* Calls fn for each record of the directory, as long as it returns 0. */
static int for_each(struct moving *m, int (*fn)(struct moving *m, const struct dirent64 *d))
{
	char *buf = malloc(SCAN_BUF);
	ssize_t n = 0, at;
	int fd, r = 0;

	if (!buf)
		return -ENOMEM;
	fd = cmek_tree_open_at(m->tree, m->dir.fd.fd, ".", O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		r = fd;
	while (r == 0) {
		n = cmek_store_getdents(fd, buf, SCAN_BUF);
		if (n <= 0)
			break;
		for (at = 0; at < n && r == 0;) {
			const struct dirent64 *d = (const void *)(buf + at);

			r = fn(m, d);
			at += d->d_reclen;
		}
	}
	/* A directory that was removed while it is known. */
	if (r == 0 && n < 0 && n != -ENOENT)
		r = (int)n;
	if (fd >= 0)
		close(fd);
	free(buf);
	return r;
}

static int scan(struct moving *m)
{
	m->left = 0;
	m->scanned = cmek_tree_dir_version(m->tree, &m->dir.fd.node.key);
	return for_each(m, look_at);
}

static int is_old(struct moving *m, const struct dirent64 *d)
{
	enum cmek_store_name_kind kind = cmek_name_kind(d->d_name);
	char plain[CMEK_PLAIN_NAME_MAX + 1];
	int r = kind == CMEK_STORE_NAME_SHORT || kind == CMEK_STORE_NAME_LONG ? judge(m, d->d_name, plain) : 0;

	/* What opens under none of the keys does not name one: the walk through the tree counts it. */
	return r == 1 ? -EAGAIN : r == -EBADMSG ? 0 : r;
}

/* The directory is locked, so nothing is renamed into it, and what has a name now is seen. */
static int find_old_locked(struct moving *m)
{
	return for_each(m, is_old);
}

/* From the one key that the id names to another; an id that names two already is brought to an end. */
static int move_names(struct moving *m, uint16_t dek)
{
	uint64_t moved, bad = m->sum->bad, left = m->sum->left;
	unsigned scans = 0;
	int r = m->dir.id.old_dek ? 0 : set_id(m, dek, m->dir.id.dek);

	do {
		if (r && r != -EAGAIN)
			return r;
		moved = m->sum->moved;
		m->sum->bad = bad;
		m->sum->left = left;
		r = scan(m);
		if (r == 0 && m->left == 0 && m->sum->moved == moved)
			r = set_id(m, m->dir.id.dek, 0);
	} while ((r || m->sum->moved > moved) && ++scans < MAX_SCANS);
	if (r == 0 && !m->dir.id.old_dek)
		m->sum->moved++;
	else if ((r == 0 || r == -EAGAIN) && m->sum->bad == bad && m->sum->left == left)
		m->sum->old++; /* the id names two keys still */
	return r == -EAGAIN ? 0 : r;
}

static int scan_symlinks(struct moving *m)
{
	int r = check_id(m);

	if (r == 0)
		r = scan(m);
	m->untouched = m->version == cmek_tree_dir_version(m->tree, &m->dir.fd.node.key);
	return r;
}

static int move_dir_at(struct moving *m, uint16_t dek)
{
	int r;

	if (m->dir.id.dek == dek && !m->dir.id.old_dek)
		return scan_symlinks(m);
	if (!cmek_tree_listings_begin_move(m->tree, &m->dir.fd.node.key)) {
		m->sum->busy++;
		return 0;
	}
	r = move_names(m, dek);
	/* That was the end of an earlier move, from before another rotation. */
	if (r == 0 && !m->dir.id.old_dek && m->dir.id.dek != dek)
		r = move_names(m, dek);
	/* What streams have read ahead are the old names. */
	m->untouched = m->version == cmek_tree_dir_version(m->tree, &m->dir.fd.node.key);
	cmek_tree_dir_changed(m->tree, &m->dir);
	cmek_tree_listings_end_move(m->tree, &m->dir.fd.node.key);
	return r;
}

/* Whoever is making something under a data key that was active has made it. */
static void let_others_end(struct moving *m)
{
	struct cmek_tree_locks locks = { 0 };

	cmek_tree_locks_add_dir(&locks, &m->dir.fd.node.key, true);
	cmek_tree_lock_dirs(m->tree, &locks);
	cmek_tree_unlock(m->tree, &locks);
}

/* Nobody has changed the directory, so its times stay; if somebody has meanwhile, they are what the store made of that. */
static int move_dir(struct moving *m)
{
	uint16_t dek = cmek_keyring_active_dek(m->tree->ring);
	uint64_t moved = m->sum->moved;
	struct cmek_store_stat st;
	struct timespec times[2];
	int r;

	if (dek == 0)
		return -EKEYREVOKED;
	r = cmek_store_stat(m->dir.fd.fd, "", &st);
	if (r)
		return r;
	m->version = cmek_tree_dir_version(m->tree, &m->dir.fd.node.key);
	r = move_dir_at(m, dek);
	times[0] = st.st.st_atim;
	times[1] = st.st.st_mtim;
	if (m->sum->moved > moved && m->untouched)
		(void)cmek_store_utimens(m->dir.fd.fd, times); /* not worth an error */
	return r;
}

int cmek_tree_reencrypt_dir(struct cmek_tree *tree, uint64_t node, struct cmek_tree_reencrypt *sum)
{
	struct moving m = { .tree = tree, .sum = sum };
	int r;

	if (atomic_load(&tree->read_only))
		return -EROFS;
	r = cmek_tree_dir_get(tree, node, &m.dir);
	if (r)
		return r;
	let_others_end(&m);
	/* A pinned one was removed: it is empty. */
	if (m.dir.fd.ref || m.dir.fd.fd == tree->root_fd)
		r = cmek_tree_dir_load_id(tree, &m.dir, false);
	m.place.dir = m.dir;
	if (r == 0 && m.dir.has_id)
		r = move_dir(&m);
	if (r == -EBADMSG || r == -EIO || r == -ENOLINK) { /* its id, or how it is stored: fsck tells */
		sum->bad++;
		r = 0;
	}
	cmek_tree_dir_put(tree, &m.dir);
	return r;
}
