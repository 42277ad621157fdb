/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Entries that go: unlink, rmdir, and what a rename puts something else in the place of. An inode that is known stays
 * reachable when its last name goes. Knows nothing of what replaces a name.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/tree/symlink_crypt.h"
#include "fs/tree/tree_impl.h"

#define MAX_TRIES 100 /* when a name is given to other things all the time */

/* The text of a symlink that has pieces; NULL for others (also damaged ones). */
static int split_text(struct cmek_tree *tree, int dirfd, const char *entry, const struct stat *st, char **ret_text)
{
	char text[CMEK_SYMLINK_TEXT_MAX + 1];
	struct cmek_symlink_head head;
	ssize_t n;

	*ret_text = NULL;
	if (!S_ISLNK(st->st_mode) || st->st_size < (off_t)tree->params.symlink_max)
		return 0;
	n = cmek_store_readlink(dirfd, entry, text, sizeof text);
	if (n < 0 || cmek_symlink_parse(text, (size_t)n, tree->params.symlink_max, &head) || !head.split)
		return 0;
	*ret_text = strdup(text);
	return *ret_text ? 0 : -ENOMEM;
}

int cmek_tree_victim_get(struct cmek_tree *tree, const struct cmek_tree_place *place, const struct cmek_store_stat *st,
			 struct cmek_tree_victim *ret_victim)
{
	int dirfd = place->dir.fd.fd, r;
	const char *entry = place->name->entry;
	struct cmek_node_key key;

	memset(ret_victim, 0, sizeof *ret_victim);
	ret_victim->fd = -1;
	ret_victim->st = *st;
	r = cmek_tree_check_mount(tree, st);
	if (r == 0)
		r = cmek_tree_key(st, dirfd, entry, &key);
	if (r)
		return r == -EXDEV ? -EBUSY : r;
	ret_victim->known = cmek_node_find(tree->nodes, &key, &ret_victim->node) == 0;
	r = split_text(tree, dirfd, entry, &st->st, &ret_victim->text);
	/* Without a name, nothing but a descriptor keeps the inode (and its number) until the kernel forgets it. */
	if (r == 0 && (ret_victim->known || ret_victim->text || S_ISDIR(st->st.st_mode))) {
		ret_victim->fd = cmek_tree_open_at(tree, dirfd, entry, O_PATH);
		r = ret_victim->fd < 0 ? ret_victim->fd : 0;
	}
	/* Where it can't stay, an inode that is open can still be had by its handle; one that is not is gone. */
	if (r == 0 && ret_victim->known && cmek_tree_fd_lower(tree, &ret_victim->fd, tree->fds.keep_end) &&
	    !(tree->by_handle && key.handle.len))
		r = -ENFILE;
	if (r)
		cmek_tree_victim_put(tree, ret_victim);
	return r;
}

static bool is_hint(struct cmek_tree *tree, const struct cmek_tree_place *place, uint64_t number)
{
	char entry[256];
	uint64_t parent;

	return cmek_node_hint(tree->nodes, number, &parent, entry) == 0 && parent == place->dir.fd.node.number &&
	       strcmp(entry, place->name->entry) == 0;
}

void cmek_tree_victim_gone(struct cmek_tree *tree, const struct cmek_tree_place *place, struct cmek_tree_victim *victim)
{
	struct cmek_store_stat st;
	bool last = true, hinted;
	uint64_t number = victim->node.number;

	/* Other names may have come or gone meanwhile; that matters only if there were any, or pieces. */
	if (victim->fd >= 0 && !S_ISDIR(victim->st.st.st_mode) && (victim->st.st.st_nlink > 1 || victim->text))
		last = cmek_store_stat(victim->fd, "", &st) != 0 || st.st.st_nlink == 0;
	if (!last) {
		/* The pieces still belong to the other names. */
		free(victim->text);
		victim->text = NULL;
	}
	if (!victim->known)
		return;
	/* Of several names, the one may have gone by which alone the inode can be opened. */
	hinted = is_hint(tree, place, number);
	if (victim->fd < tree->fds.keep_end && (last || (hinted && !(tree->by_handle && victim->node.key.handle.len))))
		cmek_node_pin(tree->nodes, number, &victim->fd);
	if (hinted)
		(void)cmek_node_set_hint(tree->nodes, number, 0, NULL);
	if (S_ISDIR(victim->st.st.st_mode))
		cmek_fd_cache_drop(tree->dirs, number);
}

void cmek_tree_victim_put(struct cmek_tree *tree, struct cmek_tree_victim *victim)
{
	if (victim->known)
		cmek_node_put(tree->nodes, victim->node.number);
	if (victim->fd >= 0)
		close(victim->fd);
	free(victim->text);
	memset(victim, 0, sizeof *victim);
	victim->fd = -1;
}

int cmek_tree_take_id(struct cmek_tree *tree, const struct cmek_tree_victim *victim, struct cmek_tree_taken *ret_taken)
{
	struct cmek_tree_census census;
	int r;

	r = cmek_tree_census(tree, victim->fd, false, &census);
	if (r)
		return r;
	if (census.entries || census.foreign)
		return -ENOTEMPTY;
	/* Links that an interrupted removal left behind. */
	if (census.links)
		r = cmek_tree_census(tree, victim->fd, true, &census);
	if (r)
		return r;
	r = cmek_dir_id_read(victim->fd, &ret_taken->id);
	ret_taken->had_id = r == 0;
	if (r == 0)
		r = cmek_dir_id_remove(victim->fd);
	if (victim->known)
		cmek_fd_cache_forget_id(tree->dirs, victim->node.number);
	return r == -ENOENT ? 0 : r;
}

void cmek_tree_give_id_back(const struct cmek_tree_victim *victim, const struct cmek_tree_taken *taken)
{
	/* If that fails, it is an empty directory without an id, which is as good. */
	if (taken->had_id)
		(void)cmek_dir_id_restore(victim->fd, &taken->id);
}

/* What is at the place, if it is no directory; *victim is to be put in any case. */
static int remove_entry(struct cmek_tree *tree, struct cmek_tree_place *place, struct cmek_tree_victim *victim)
{
	struct cmek_tree_locks locks = { 0 };
	struct cmek_store_stat st;
	int r;

	cmek_tree_place_lock(&locks, place);
	cmek_tree_lock_names(tree, &locks);
	r = cmek_tree_place_find(tree, place, &st);
	if (r == 0 && S_ISDIR(st.st.st_mode))
		r = -EISDIR;
	if (r == 0)
		r = cmek_tree_victim_get(tree, place, &st, victim);
	if (r == 0)
		r = cmek_store_unlink(place->dir.fd.fd, place->name->entry);
	if (r == 0) {
		cmek_tree_victim_gone(tree, place, victim);
		cmek_tree_place_drop_link(tree, place);
		cmek_tree_dir_changed(tree, &place->dir);
	}
	cmek_tree_unlock(tree, &locks);
	return r;
}

int cmek_tree_unlink(struct cmek_tree *tree, uint64_t parent, const char *name)
{
	struct cmek_tree_victim victim = { .fd = -1 };
	struct cmek_tree_place place;
	int r;

	if (atomic_load(&tree->read_only))
		return -EROFS;
	r = cmek_tree_place_get(tree, parent, name, &place);
	if (r)
		return r;
	r = cmek_tree_place_name(tree, &place, name);
	if (r == 0)
		r = remove_entry(tree, &place, &victim);
	while (r == -ENOENT && cmek_tree_place_moved(tree, &place, name))
		r = remove_entry(tree, &place, &victim);
	if (r == 0 && victim.text)
		cmek_tree_drop_pieces(tree, victim.text);
	cmek_tree_victim_put(tree, &victim);
	cmek_tree_place_put(tree, &place);
	return r;
}

/* The directory is what is at the place, and locked. */
static int remove_dir(struct cmek_tree *tree, struct cmek_tree_place *place, const struct cmek_store_stat *st)
{
	struct cmek_tree_victim victim;
	struct cmek_tree_taken taken;
	int r;

	r = cmek_tree_victim_get(tree, place, st, &victim);
	if (r)
		return r;
	r = cmek_tree_take_id(tree, &victim, &taken);
	if (r == 0) {
		r = cmek_store_rmdir(place->dir.fd.fd, place->name->entry);
		if (r)
			cmek_tree_give_id_back(&victim, &taken);
	}
	if (r == 0) {
		cmek_tree_victim_gone(tree, place, &victim);
		cmek_tree_place_drop_link(tree, place);
		cmek_tree_dir_changed(tree, &place->dir);
	}
	cmek_tree_victim_put(tree, &victim);
	return r;
}

int cmek_tree_rmdir(struct cmek_tree *tree, uint64_t parent, const char *name)
{
	struct cmek_store_stat st, again;
	struct cmek_tree_place place;
	int r, tries;

	if (atomic_load(&tree->read_only))
		return -EROFS;
	r = cmek_tree_place_get(tree, parent, name, &place);
	if (r)
		return r;
	r = cmek_tree_place_name(tree, &place, name);
	/* The directory's lock comes before the name's, so look what it is first, and then whether it still is. */
	for (tries = 0; r == 0 && tries < MAX_TRIES; tries++) {
		struct cmek_tree_locks locks = { 0 };
		struct cmek_node_key key;
		bool same = false;

		r = cmek_tree_place_find(tree, &place, &st);
		if (r == -ENOENT && cmek_tree_place_moved(tree, &place, name)) {
			r = 0;
			continue;
		}
		if (r == 0 && !S_ISDIR(st.st.st_mode))
			r = -ENOTDIR;
		if (r)
			break;
		key.dev = st.st.st_dev;
		key.ino = st.st.st_ino;
		cmek_tree_locks_add_dir(&locks, &key, true);
		cmek_tree_place_lock(&locks, &place);
		cmek_tree_lock_dirs(tree, &locks);
		cmek_tree_lock_names(tree, &locks);
		r = cmek_tree_place_find(tree, &place, &again);
		if (r == 0)
			same = S_ISDIR(again.st.st_mode) && again.st.st_ino == st.st.st_ino &&
			       again.st.st_dev == st.st.st_dev;
		if (same)
			r = remove_dir(tree, &place, &again);
		cmek_tree_unlock(tree, &locks);
		if (same)
			break;
		if (r == -ENOENT && cmek_tree_place_moved(tree, &place, name))
			r = 0;
	}
	if (tries == MAX_TRIES)
		r = -EBUSY;
	cmek_tree_place_put(tree, &place);
	return r;
}
