/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Renames: the target's long-name link is made before, the source's removed after, so that at every moment (and after
 * a crash at any) the entry can be read under one of its names. Knows no contents: who replaces a file commits it.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "fs/tree/tree_impl.h"

#define MAX_TRIES 100 /* when the target is another directory each time */

struct moving {
	struct cmek_tree_place src, dst;
	struct cmek_store_stat src_st, dst_st;
	bool dst_exists;
	bool exchange;
	bool victim_locked; /* the directory lock of victim_key is held */
	struct cmek_node_key victim_key;
	struct cmek_node moved, swapped; /* held if known */
	bool moved_known, swapped_known;
	struct cmek_tree_victim victim;
};

static bool same_inode(const struct cmek_store_stat *a, const struct cmek_store_stat *b)
{
	return a->st.st_ino == b->st.st_ino && a->st.st_dev == b->st.st_dev;
}

static int find_known(struct cmek_tree *tree, const struct cmek_tree_place *place, const struct cmek_store_stat *st,
		      struct cmek_node *ret_node, bool *ret_known)
{
	struct cmek_node_key key;
	int r = cmek_tree_check_mount(tree, st);

	if (r == 0)
		r = cmek_tree_key(st, place->dir.fd.fd, place->name->entry, &key);
	if (r == 0)
		*ret_known = cmek_node_find(tree->nodes, &key, ret_node) == 0;
	return r == -EXDEV ? -EBUSY : r;
}

/* What is at both places. 1: there is nothing to do. Names locked. */
static int look(struct cmek_tree *tree, struct moving *m, unsigned flags)
{
	int r = cmek_tree_place_find(tree, &m->src, &m->src_st);

	if (r)
		return r;
	r = cmek_tree_place_find(tree, &m->dst, &m->dst_st);
	m->dst_exists = r == 0;
	if (r && (r != -ENOENT || m->exchange))
		return r;
	if (m->dst_exists && (flags & RENAME_NOREPLACE))
		return -EEXIST;
	/* Two names of one file: POSIX wants both to stay. */
	if (m->dst_exists && same_inode(&m->src_st, &m->dst_st))
		return 1;
	return 0;
}

/* A directory in the place of a directory: its id must go first, under its own lock. */
static bool replaces_dir(const struct moving *m)
{
	return m->dst_exists && !m->exchange && S_ISDIR(m->src_st.st.st_mode) && S_ISDIR(m->dst_st.st.st_mode);
}

static int prepare(struct cmek_tree *tree, struct moving *m)
{
	int r = find_known(tree, &m->src, &m->src_st, &m->moved, &m->moved_known);

	if (r == 0 && m->exchange)
		r = find_known(tree, &m->dst, &m->dst_st, &m->swapped, &m->swapped_known);
	if (r == 0 && m->dst_exists && !m->exchange)
		r = cmek_tree_victim_get(tree, &m->dst, &m->dst_st, &m->victim);
	if (r == 0 && !m->exchange)
		r = cmek_tree_place_make_link(tree, &m->dst);
	return r;
}

static void moved_done(struct cmek_tree *tree, struct moving *m)
{
	if (m->dst_exists && !m->exchange)
		cmek_tree_victim_gone(tree, &m->dst, &m->victim);
	/* A node without a hint for want of memory is found again by its next lookup. */
	if (m->moved_known)
		(void)cmek_node_set_hint(tree->nodes, m->moved.number, m->dst.dir.fd.node.number, m->dst.name->entry);
	if (m->swapped_known)
		(void)cmek_node_set_hint(tree->nodes, m->swapped.number, m->src.dir.fd.node.number,
					 m->src.name->entry);
	if (!m->exchange)
		cmek_tree_place_drop_link(tree, &m->src);
	cmek_tree_dir_changed(tree, &m->src.dir);
	cmek_tree_dir_changed(tree, &m->dst.dir);
}

/* All locks are held. */
static int move(struct cmek_tree *tree, struct moving *m, unsigned flags)
{
	struct cmek_tree_taken taken = { 0 };
	struct cmek_store_stat st;
	int r;

	cmek_tree_note_entry(tree, &m->src, &m->src_st);
	if (m->exchange)
		cmek_tree_note_entry(tree, &m->dst, &m->dst_st);
	r = prepare(tree, m);
	if (r == 0 && replaces_dir(m))
		r = cmek_tree_take_id(tree, &m->victim, &taken);
	if (r == 0)
		r = cmek_store_rename(m->src.dir.fd.fd, m->src.name->entry, m->dst.dir.fd.fd, m->dst.name->entry,
				      flags);
	if (r == 0) {
		moved_done(tree, m);
		return 0;
	}
	if (taken.had_id)
		cmek_tree_give_id_back(&m->victim, &taken);
	if (m->dst.made_link && cmek_store_stat(m->dst.dir.fd.fd, m->dst.name->entry, &st) == -ENOENT)
		cmek_tree_place_drop_link(tree, &m->dst);
	return r;
}

/* -EAGAIN: the target is a directory whose lock is wanted, too. */
static int attempt(struct cmek_tree *tree, struct moving *m, const char *new_name, unsigned flags)
{
	struct cmek_tree_locks locks = { 0 };
	int r;

	m->dst.n_names = 0;
	m->dst.made_link = false;
	cmek_tree_locks_add_dir(&locks, &m->dst.dir.fd.node.key, false);
	if (m->victim_locked)
		cmek_tree_locks_add_dir(&locks, &m->victim_key, true);
	cmek_tree_lock_dirs(tree, &locks);
	r = cmek_tree_place_new_name(tree, &m->dst, new_name);
	if (r)
		goto out;
	cmek_tree_place_lock(&locks, &m->src);
	cmek_tree_place_lock(&locks, &m->dst);
	cmek_tree_lock_names(tree, &locks);
	r = look(tree, m, flags);
	if (r == 1)
		r = 0;
	else if (r == 0 && replaces_dir(m) &&
		 !(m->victim_locked && m->victim_key.ino == m->dst_st.st.st_ino &&
		   m->victim_key.dev == m->dst_st.st.st_dev))
		r = -EAGAIN;
	else if (r == 0)
		r = move(tree, m, flags);
out:
	cmek_tree_unlock(tree, &locks);
	return r;
}

int cmek_tree_rename(struct cmek_tree *tree, uint64_t parent, const char *name, uint64_t new_parent,
		     const char *new_name, unsigned flags)
{
	struct moving m;
	int r, tries;

	if (flags != 0 && flags != RENAME_NOREPLACE && flags != RENAME_EXCHANGE)
		return -EINVAL;
	if (atomic_load(&tree->read_only))
		return -EROFS;
	memset(&m, 0, sizeof m);
	m.exchange = flags == RENAME_EXCHANGE;
	m.victim.fd = -1;
	r = cmek_tree_place_get(tree, parent, name, &m.src);
	if (r)
		return r;
	r = cmek_tree_place_get(tree, new_parent, new_name, &m.dst);
	if (r)
		goto out;
	r = cmek_tree_place_name(tree, &m.src, name);
	for (tries = 0; r == 0 || r == -EAGAIN; tries++) {
		r = attempt(tree, &m, new_name, flags);
		if (r == -ENOENT && tries < MAX_TRIES && cmek_tree_place_moved(tree, &m.src, name)) {
			r = 0;
			continue;
		}
		if (r != -EAGAIN || tries == MAX_TRIES)
			break;
		m.victim_locked = true;
		m.victim_key.dev = m.dst_st.st.st_dev;
		m.victim_key.ino = m.dst_st.st.st_ino;
	}
	if (r == 0 && m.victim.text)
		cmek_tree_drop_pieces(tree, m.victim.text);
	if (m.moved_known)
		cmek_node_put(tree->nodes, m.moved.number);
	if (m.swapped_known)
		cmek_node_put(tree->nodes, m.swapped.number);
	cmek_tree_victim_put(tree, &m.victim);
	cmek_tree_place_put(tree, &m.dst);
out:
	cmek_tree_place_put(tree, &m.src);
	return r == -EAGAIN ? -EBUSY : r;
}
