/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Flushing: directories, the whole store, and what a file's name needs. On stores whose fsync of a file does not carry
 * the file's siblings, a directory in which this mount made an id link or a long name's link is marked until it has
 * been flushed (doc/format.md section 6). Knows no contents.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "fs/tree/tree_impl.h"

#define MAX_MARKED 65536 /* marked nodes stay known: no more of them than this */
#define MAX_DEPTH 65536  /* no path of ours is deeper; hints may be wrong */

static int flush_dir(struct cmek_tree *tree, uint64_t number, bool datasync)
{
	uint32_t mark = cmek_node_mark_of(tree->nodes, number);
	struct cmek_tree_fd dir;
	int r, fd;

	r = cmek_tree_fd_get(tree, number, &dir);
	if (r)
		return r;
	r = fd = cmek_tree_open_at(tree, dir.fd, ".", O_RDONLY | O_DIRECTORY);
	if (fd >= 0) {
		r = cmek_store_fsync(fd, datasync);
		close(fd);
	}
	cmek_tree_fd_put(tree, &dir);
	/* A link made since we looked has changed the mark. */
	if (r == 0)
		cmek_node_clear_mark(tree->nodes, number, mark);
	return r;
}

/* Flushes the marked ones of a directory and those above it. */
static int flush_upwards(struct cmek_tree *tree, uint64_t number)
{
	struct cmek_node at, next;
	char entry[256];
	uint64_t parent;
	int r, depth;

	if (cmek_node_n_marked(tree->nodes) == 0 || cmek_node_get(tree->nodes, number, &at))
		return 0;
	for (depth = 0, r = 0; depth < MAX_DEPTH; depth++) {
		if (cmek_node_mark_of(tree->nodes, at.number))
			r = flush_dir(tree, at.number, false);
		if (r || at.number == CMEK_NODE_ROOT || cmek_node_hint(tree->nodes, at.number, &parent, entry) ||
		    cmek_node_get(tree->nodes, parent, &next))
			break;
		cmek_node_put(tree->nodes, at.number);
		at = next;
	}
	cmek_node_put(tree->nodes, at.number);
	return r;
}

int cmek_tree_dirty_add(struct cmek_tree *tree, uint64_t dir)
{
	uint32_t mark;

	if (!tree->flush_names)
		return 0;
	if (cmek_node_n_marked(tree->nodes) >= MAX_MARKED) {
		int r = cmek_tree_syncfs(tree);

		if (r)
			return r;
	}
	do
		mark = __atomic_add_fetch(&tree->dirty_seq, 1, __ATOMIC_RELAXED);
	while (mark == 0);
	cmek_node_mark(tree->nodes, dir, mark);
	return 0;
}

int cmek_tree_fsyncdir(struct cmek_tree *tree, uint64_t node, bool datasync)
{
	char entry[256];
	uint64_t parent;
	int r = flush_dir(tree, node, datasync);

	if (r == 0 && tree->flush_names && cmek_node_hint(tree->nodes, node, &parent, entry) == 0)
		r = flush_upwards(tree, parent);
	return r;
}

int cmek_tree_fsync_entry(struct cmek_tree *tree, uint64_t node)
{
	char entry[256];
	uint64_t parent;

	if (!tree->flush_names || cmek_node_hint(tree->nodes, node, &parent, entry))
		return 0;
	return flush_upwards(tree, parent);
}

int cmek_tree_syncfs(struct cmek_tree *tree)
{
	uint32_t mark, before = __atomic_load_n(&tree->dirty_seq, __ATOMIC_RELAXED);
	uint64_t index = 0, number;
	int r = cmek_store_syncfs(tree->root_fd);

	if (r || cmek_node_n_marked(tree->nodes) == 0)
		return r;
	while ((number = cmek_node_next_marked(tree->nodes, &index, &mark))) {
		/* Marks count up, and round. */
		if ((int32_t)(mark - before) <= 0)
			cmek_node_clear_mark(tree->nodes, number, mark);
	}
	return 0;
}
