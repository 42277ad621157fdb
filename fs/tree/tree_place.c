/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A plain name in a directory: the directory's id, the names in the store, their long-name link, and the locks around
 * them. Knows nothing of what the entries are.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/tree/tree_impl.h"

#define CENSUS_BUF 16384

/* Locks */

static uint64_t hash_dir(const struct cmek_node_key *dir)
{
	uint64_t h = (dir->ino ^ dir->dev << 40) * UINT64_C(0x9e3779b97f4a7c15);

	return h ^ h >> 32;
}

unsigned cmek_tree_dir_stripe(const struct cmek_node_key *dir, unsigned n)
{
	return (unsigned)(hash_dir(dir) % n);
}

void cmek_tree_locks_add_dir(struct cmek_tree_locks *locks, const struct cmek_node_key *key, bool write)
{
	uint16_t stripe = (uint16_t)cmek_tree_dir_stripe(key, CMEK_TREE_DIR_LOCKS);
	unsigned i;

	for (i = 0; i < locks->n_dirs; i++) {
		if (locks->dirs[i] == stripe) {
			locks->dirs_write[i] |= write;
			return;
		}
	}
	for (i = locks->n_dirs++; i > 0 && locks->dirs[i - 1] > stripe; i--) {
		locks->dirs[i] = locks->dirs[i - 1];
		locks->dirs_write[i] = locks->dirs_write[i - 1];
	}
	locks->dirs[i] = stripe;
	locks->dirs_write[i] = write;
}

void cmek_tree_locks_add_name(struct cmek_tree_locks *locks, const struct cmek_node_key *dir, const char *entry)
{
	uint64_t h = hash_dir(dir);
	uint16_t stripe;
	unsigned i;

	for (; *entry; entry++)
		h = (h ^ (unsigned char)*entry) * UINT64_C(0x100000001b3);
	stripe = (uint16_t)((h ^ h >> 32) % CMEK_TREE_NAME_LOCKS);
	for (i = 0; i < locks->n_names; i++) {
		if (locks->names[i] == stripe)
			return;
	}
	for (i = locks->n_names++; i > 0 && locks->names[i - 1] > stripe; i--)
		locks->names[i] = locks->names[i - 1];
	locks->names[i] = stripe;
}

void cmek_tree_lock_dirs(struct cmek_tree *tree, struct cmek_tree_locks *locks)
{
	unsigned i;

	for (i = 0; i < locks->n_dirs; i++) {
		if (locks->dirs_write[i])
			pthread_rwlock_wrlock(&tree->dir_locks[locks->dirs[i]]);
		else
			pthread_rwlock_rdlock(&tree->dir_locks[locks->dirs[i]]);
	}
	locks->dirs_held = true;
}

void cmek_tree_lock_names(struct cmek_tree *tree, struct cmek_tree_locks *locks)
{
	unsigned i;

	for (i = 0; i < locks->n_names; i++)
		pthread_mutex_lock(&tree->name_locks[locks->names[i]]);
	locks->names_held = true;
}

void cmek_tree_unlock(struct cmek_tree *tree, struct cmek_tree_locks *locks)
{
	unsigned i;

	for (i = locks->names_held ? locks->n_names : 0; i > 0; i--)
		pthread_mutex_unlock(&tree->name_locks[locks->names[i - 1]]);
	for (i = locks->dirs_held ? locks->n_dirs : 0; i > 0; i--)
		pthread_rwlock_unlock(&tree->dir_locks[locks->dirs[i - 1]]);
	memset(locks, 0, sizeof *locks);
}

void cmek_tree_dir_changed(struct cmek_tree *tree, const struct cmek_tree_dir *dir)
{
	uint64_t stripe = hash_dir(&dir->fd.node.key) % CMEK_TREE_DIR_VERSIONS;

	__atomic_fetch_add(&tree->dir_versions[stripe], 1, __ATOMIC_RELEASE);
}

uint32_t cmek_tree_dir_version(struct cmek_tree *tree, const struct cmek_node_key *dir)
{
	return __atomic_load_n(&tree->dir_versions[hash_dir(dir) % CMEK_TREE_DIR_VERSIONS], __ATOMIC_ACQUIRE);
}

/* Directories and their ids */

static int census_record(const char *name, int fd, bool drop_links, struct cmek_tree_census *census)
{
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, CMEK_DIR_ID_NAME) == 0)
		return 0;
	switch (cmek_name_kind(name)) {
	case CMEK_STORE_NAME_SHORT:
	case CMEK_STORE_NAME_LONG:
		census->entries = true;
		return 0;
	case CMEK_STORE_NAME_LINK:
		census->links = true;
		return drop_links ? cmek_store_unlink(fd, name) : 0;
	case CMEK_STORE_NAME_OWN:
	case CMEK_STORE_NAME_FOREIGN:
		break;
	}
	census->foreign = true;
	return 0;
}

int cmek_tree_census(struct cmek_tree *tree, int dirfd, bool drop_links, struct cmek_tree_census *ret_census)
{
	struct cmek_tree_census census = { 0 };
	char *buf = malloc(CENSUS_BUF);
	ssize_t n = 0, at;
	int fd = -1, r = 0;

	if (!buf)
		return -ENOMEM;
	fd = cmek_tree_open_at(tree, dirfd, ".", O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		r = fd;
	while (r == 0 && !census.entries) {
		n = cmek_store_getdents(fd, buf, CENSUS_BUF);
		if (n <= 0)
			break;
		for (at = 0; at < n && r == 0;) {
			const struct dirent64 *d = (const void *)(buf + at);

			r = census_record(d->d_name, fd, drop_links, &census);
			at += d->d_reclen;
		}
	}
	/* A directory that was removed while it is known. */
	if (r == 0 && n < 0 && n != -ENOENT)
		r = (int)n;
	if (fd >= 0)
		close(fd);
	free(buf);
	if (r == 0)
		*ret_census = census;
	return r;
}

int cmek_tree_dir_get(struct cmek_tree *tree, uint64_t number, struct cmek_tree_dir *ret_dir)
{
	int r = cmek_tree_fd_get(tree, number, &ret_dir->fd);

	if (r == 0 && !S_ISDIR(ret_dir->fd.node.type)) {
		cmek_tree_fd_put(tree, &ret_dir->fd);
		r = -ENOTDIR;
	}
	ret_dir->has_id = false;
	return r;
}

void cmek_tree_dir_put(struct cmek_tree *tree, struct cmek_tree_dir *dir)
{
	cmek_tree_fd_put(tree, &dir->fd);
}

static void dir_set_id(struct cmek_tree *tree, struct cmek_tree_dir *dir)
{
	dir->has_id = true;
	if (dir->fd.ref)
		cmek_fd_ref_set_id(tree->dirs, dir->fd.ref, &dir->id);
}

static int read_id(struct cmek_tree *tree, struct cmek_tree_dir *dir)
{
	struct cmek_tree_census census;
	int r, tries;

	/* Twice: another thread may make the id and an entry between our two looks. */
	for (tries = 0; tries < 2; tries++) {
		r = cmek_dir_id_read(dir->fd.fd, &dir->id);
		if (r == 0)
			dir_set_id(tree, dir);
		if (r != -ENOENT)
			return r;
		r = cmek_tree_census(tree, dir->fd.fd, false, &census);
		if (r)
			return r;
		if (!census.entries) {
			if (dir->fd.ref)
				cmek_fd_ref_set_empty(tree->dirs, dir->fd.ref);
			return 0;
		}
	}
	return -ENOLINK;
}

int cmek_tree_dir_load_id(struct cmek_tree *tree, struct cmek_tree_dir *dir, bool locked)
{
	enum cmek_dir_state state = CMEK_DIR_UNKNOWN;
	struct cmek_tree_locks locks = { 0 };
	int r;

	if (dir->fd.ref)
		state = cmek_fd_ref_id(tree->dirs, dir->fd.ref, &dir->id);
	dir->has_id = state == CMEK_DIR_HAS_ID;
	if (state != CMEK_DIR_UNKNOWN)
		return 0;
	/* What gets into the cache must not be an id that is just being taken away. */
	if (!locked) {
		cmek_tree_locks_add_dir(&locks, &dir->fd.node.key, false);
		cmek_tree_lock_dirs(tree, &locks);
	}
	r = read_id(tree, dir);
	cmek_tree_unlock(tree, &locks);
	return r;
}

static int dir_make_id(struct cmek_tree *tree, struct cmek_tree_dir *dir)
{
	bool made = false;
	int r = cmek_tree_dir_load_id(tree, dir, true);

	if (r || dir->has_id)
		return r;
	if (dir->fd.ref || dir->fd.fd == tree->root_fd) {
		r = cmek_dir_id_make(dir->fd.fd, cmek_keyring_active_dek(tree->ring), &dir->id, &made);
		if (r == 0)
			dir_set_id(tree, dir);
	} else {
		r = -ENOENT; /* pinned: it was removed */
	}
	if (r == 0 && made)
		r = cmek_tree_dirty_add(tree, dir->fd.node.number);
	return r;
}

/* Places */

int cmek_tree_place_get(struct cmek_tree *tree, uint64_t parent, const char *plain, struct cmek_tree_place *ret_place)
{
	int r = cmek_name_check(plain);

	if (r)
		return r;
	ret_place->n_names = 0;
	ret_place->name = NULL;
	ret_place->made_link = false;
	return cmek_tree_dir_get(tree, parent, &ret_place->dir);
}

void cmek_tree_place_put(struct cmek_tree *tree, struct cmek_tree_place *place)
{
	cmek_tree_dir_put(tree, &place->dir);
}

static int add_name(struct cmek_tree *tree, struct cmek_tree_place *place, uint16_t dek, const char *plain)
{
	struct cmek_secret *key = NULL;
	int r = cmek_keyring_name_key(tree->ring, dek, &key);

	if (r == 0)
		r = cmek_name_encrypt(key, place->dir.id.id, plain, &place->names[place->n_names]);
	if (r == 0)
		place->n_names++;
	cmek_secret_free(key);
	return r;
}

static int compute_names(struct cmek_tree *tree, struct cmek_tree_place *place, const char *plain)
{
	int r = add_name(tree, place, place->dir.id.dek, plain);

	if (r == 0 && place->dir.id.old_dek)
		r = add_name(tree, place, place->dir.id.old_dek, plain);
	place->name = &place->names[0];
	return r;
}

int cmek_tree_place_name(struct cmek_tree *tree, struct cmek_tree_place *place, const char *plain)
{
	int r = cmek_tree_dir_load_id(tree, &place->dir, false);

	if (r)
		return r;
	return place->dir.has_id ? compute_names(tree, place, plain) : -ENOENT;
}

bool cmek_tree_place_moved(struct cmek_tree *tree, struct cmek_tree_place *place, const char *plain)
{
	const struct cmek_dir_id before = place->dir.id;

	if (!place->dir.has_id || cmek_tree_dir_load_id(tree, &place->dir, false) || !place->dir.has_id)
		return false;
	if (place->dir.id.dek == before.dek && (place->dir.id.old_dek == before.old_dek || !place->dir.id.old_dek))
		return false;
	place->n_names = 0;
	return compute_names(tree, place, plain) == 0;
}

int cmek_tree_place_new_name(struct cmek_tree *tree, struct cmek_tree_place *place, const char *plain)
{
	int r = dir_make_id(tree, &place->dir);

	return r ? r : compute_names(tree, place, plain);
}

void cmek_tree_place_lock(struct cmek_tree_locks *locks, const struct cmek_tree_place *place)
{
	unsigned i;

	for (i = 0; i < place->n_names; i++)
		cmek_tree_locks_add_name(locks, &place->dir.fd.node.key, place->names[i].entry);
}

int cmek_tree_place_find(struct cmek_tree *tree, struct cmek_tree_place *place, struct cmek_store_stat *ret_stat)
{
	unsigned i;
	int r = -ENOENT;

	(void)tree;
	for (i = 0; i < place->n_names && r == -ENOENT; i++) {
		r = cmek_store_stat(place->dir.fd.fd, place->names[i].entry, ret_stat);
		if (r == 0)
			place->name = &place->names[i];
	}
	if (r)
		place->name = &place->names[0];
	return r;
}

int cmek_tree_place_check_link(const struct cmek_tree_place *place)
{
	char text[CMEK_STORED_FORM_MAX + 2];
	ssize_t n;

	if (!place->name->link[0])
		return 0;
	n = cmek_store_readlink(place->dir.fd.fd, place->name->link, text, sizeof text);
	if (n == -ENOENT || n == -EINVAL || n == -ENAMETOOLONG)
		return -EBADMSG;
	return n < 0 ? (int)n : strcmp(text, place->name->form) == 0 ? 0 : -EBADMSG;
}

int cmek_tree_place_make_link(struct cmek_tree *tree, struct cmek_tree_place *place)
{
	const struct cmek_stored_name *name = place->name;
	char text[CMEK_STORED_FORM_MAX + 2];
	int fd = place->dir.fd.fd, r;
	ssize_t n;

	if (!name->link[0])
		return 0;
	r = cmek_store_symlink(fd, name->link, name->form);
	if (r == 0)
		place->made_link = true;
	if (r == -EEXIST) {
		/* The entry's own, or one that a crash left. A wrong one can only be damage: the hash is the form's. */
		n = cmek_store_readlink(fd, name->link, text, sizeof text);
		if (n >= 0 && strcmp(text, name->form) == 0)
			return 0;
		r = cmek_store_unlink(fd, name->link);
		if (r == 0)
			r = cmek_store_symlink(fd, name->link, name->form);
	}
	return r ? r : cmek_tree_dirty_add(tree, place->dir.fd.node.number);
}

void cmek_tree_place_drop_link(struct cmek_tree *tree, const struct cmek_tree_place *place)
{
	(void)tree;
	/* Left behind, it is ignored by everybody. */
	if (place->name->link[0])
		(void)cmek_store_unlink(place->dir.fd.fd, place->name->link);
}
