/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Descriptors of nodes: from the pin, the cache of directories, the store's handle, or else the place where the node
 * was last seen (its hint). Knows no plain names and no keys.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/tree/tree_impl.h"

#define MAX_DEPTH 65536 /* of directories whose descriptors are all not cached */
#define MAX_TRIES 100   /* when hints change while they are followed */

static bool shrink(struct cmek_tree *tree, int fd_end)
{
	return cmek_fd_cache_shrink(tree->files, fd_end) + cmek_fd_cache_shrink(tree->dirs, fd_end) > 0;
}

bool cmek_tree_ran_out(struct cmek_tree *tree, int r)
{
	return (r == -EMFILE || r == -ENFILE) && shrink(tree, INT_MAX);
}

int cmek_tree_fd_lower(struct cmek_tree *tree, int *fd, int end)
{
	int r;

	do
		r = cmek_fds_lower(fd, end);
	while (r && shrink(tree, end));
	return r;
}

/* It is not the user's process that has too many files open. */
static int or_enfile(int fd)
{
	return fd == -EMFILE ? -ENFILE : fd;
}

static struct cmek_fd_cache *cache_of(struct cmek_tree *tree, const struct cmek_node *node)
{
	return S_ISDIR(node->type) ? tree->dirs : tree->files;
}

int cmek_tree_open_at(struct cmek_tree *tree, int dirfd, const char *name, int flags)
{
	int fd = cmek_store_open(dirfd, name, flags);

	return or_enfile(cmek_tree_ran_out(tree, fd) ? cmek_store_open(dirfd, name, flags) : fd);
}

static int open_handle(struct cmek_tree *tree, const struct cmek_handle *handle, int flags)
{
	int fd = cmek_store_open_handle(tree->root_fd, handle, flags);

	return or_enfile(cmek_tree_ran_out(tree, fd) ? cmek_store_open_handle(tree->root_fd, handle, flags) : fd);
}

static int reopen(struct cmek_tree *tree, int fd, int flags)
{
	int new_fd = cmek_store_reopen(fd, flags);

	return or_enfile(cmek_tree_ran_out(tree, new_fd) ? cmek_store_reopen(fd, flags) : new_fd);
}

static int dup_fd(int fd)
{
	int new_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	return new_fd < 0 ? or_enfile(-errno) : new_fd;
}

int cmek_tree_fd_room(struct cmek_tree *tree)
{
	int fd = dup_fd(tree->root_fd), r = fd < 0 ? -EMFILE : cmek_tree_fd_lower(tree, &fd, tree->fds.user_end);

	if (fd >= 0)
		close(fd);
	return r;
}

/* Following hints */

/* 0 when fd is the node's inode. */
static int check_identity(int fd, const struct cmek_node *node)
{
	struct cmek_store_stat st;
	struct cmek_node_key key;
	int r = cmek_store_stat(fd, "", &st);

	if (r == 0)
		r = cmek_tree_key(&st, fd, "", &key);
	if (r)
		return r;
	return key.ino == node->key.ino && key.dev == node->key.dev &&
			       cmek_handle_equal(&key.handle, &node->key.handle) ?
		       0 :
		       -ESTALE;
}

/* A descriptor that is there already: -EAGAIN when there is none. */
static int at_hand(struct cmek_tree *tree, uint64_t number, struct cmek_tree_fd *ret_fd)
{
	int r = cmek_node_get(tree->nodes, number, &ret_fd->node);

	if (r)
		return r;
	ret_fd->ref = NULL;
	if (number == CMEK_NODE_ROOT) {
		ret_fd->fd = tree->root_fd;
		return 0;
	}
	if (ret_fd->node.pin_fd >= 0) {
		ret_fd->fd = ret_fd->node.pin_fd;
		return 0;
	}
	ret_fd->ref = cmek_fd_cache_get(cache_of(tree, &ret_fd->node), number);
	if (ret_fd->ref) {
		ret_fd->fd = cmek_fd_ref_fd(ret_fd->ref);
		return 0;
	}
	cmek_node_put(tree->nodes, number);
	return -EAGAIN;
}

/* An O_PATH descriptor of the node from the directory of its hint. -EAGAIN: the hint is another one by now. */
static int open_in_dir(struct cmek_tree *tree, const struct cmek_node *node, const struct cmek_tree_fd *dir)
{
	char entry[256], again[256];
	uint64_t parent;
	struct cmek_tree_locks locks = { 0 };
	int r, fd = -1;

	r = cmek_node_hint(tree->nodes, node->number, &parent, entry);
	if (r)
		return r == -ENOENT ? -ESTALE : r;
	/* Who changes the name holds this lock until the hint is changed, too. */
	cmek_tree_locks_add_name(&locks, &dir->node.key, entry);
	cmek_tree_lock_names(tree, &locks);
	r = cmek_node_hint(tree->nodes, node->number, &parent, again);
	if (r || parent != dir->node.number || strcmp(entry, again) != 0) {
		r = -EAGAIN;
	} else {
		fd = cmek_tree_open_at(tree, dir->fd, entry, O_PATH);
		if (fd < 0)
			r = fd == -ENOENT ? -ESTALE : fd;
	}
	cmek_tree_unlock(tree, &locks);
	if (fd >= 0)
		r = check_identity(fd, node);
	if (r && fd >= 0)
		close(fd);
	return r ? r : fd;
}

/* Replaces *dir by the directory `number` inside it. */
static int descend(struct cmek_tree *tree, struct cmek_tree_fd *dir, uint64_t number)
{
	struct cmek_tree_fd next = { .fd = -1 };
	int r = cmek_node_get(tree->nodes, number, &next.node), fd;

	if (r)
		return r;
	fd = open_in_dir(tree, &next.node, dir);
	if (fd >= 0) {
		next.ref = cmek_fd_cache_add(tree->dirs, number, &fd);
		if (fd >= 0)
			close(fd);
		if (next.ref) {
			next.fd = cmek_fd_ref_fd(next.ref);
			cmek_tree_fd_put(tree, dir);
			*dir = next;
			return 0;
		}
		fd = -ENOMEM;
	}
	cmek_node_put(tree->nodes, number);
	return fd;
}

/*
 * The directory of the node's hint: upwards to one that is at hand, and from there down again. A loop, because trees
 * can be deep. The way that has been gone is held, so that a small cache can't lose it.
 */
static int hint_dir(struct cmek_tree *tree, const struct cmek_node *node, struct cmek_tree_fd *ret_dir)
{
	uint64_t *path = NULL, *more, number = node->number, parent;
	size_t n = 0, space = 0;
	struct cmek_tree_fd dir;
	char entry[256];
	int r;

	for (;;) {
		r = cmek_node_hint(tree->nodes, number, &parent, entry);
		if (r == 0)
			r = at_hand(tree, parent, &dir);
		if (r != -EAGAIN)
			break;
		if (n == space) {
			space = space ? space * 2 : 16;
			more = n < MAX_DEPTH ? realloc(path, space * sizeof *path) : NULL;
			if (!more) {
				r = -ENOMEM;
				break;
			}
			path = more;
		}
		path[n++] = number = parent;
	}
	if (r == 0) {
		while (r == 0 && n > 0)
			r = descend(tree, &dir, path[--n]);
		if (r)
			cmek_tree_fd_put(tree, &dir);
		else
			*ret_dir = dir;
	}
	free(path);
	/* Forgotten, or without a hint: the way has changed while we went it. */
	return r == -ENOENT || r == -ESTALE ? -EAGAIN : r;
}

static int open_by_hint(struct cmek_tree *tree, const struct cmek_node *node)
{
	struct cmek_tree_fd dir;
	int r = -EAGAIN, tries;

	for (tries = 0; r == -EAGAIN && tries < MAX_TRIES; tries++) {
		r = hint_dir(tree, node, &dir);
		if (r == 0) {
			r = open_in_dir(tree, node, &dir);
			cmek_tree_fd_put(tree, &dir);
		}
	}
	return r == -EAGAIN ? -ESTALE : r;
}

/* For everybody */

static int open_pinned(struct cmek_tree *tree, const struct cmek_node *node, int flags)
{
	return flags & O_PATH ? dup_fd(node->pin_fd) : reopen(tree, node->pin_fd, flags);
}

static int open_unpinned(struct cmek_tree *tree, const struct cmek_node *node, int flags)
{
	int fd, path_fd;

	if (tree->by_handle && node->key.handle.len) {
		fd = open_handle(tree, &node->key.handle, flags);
		/* Landlock does not let files be opened that it can't see a path of. */
		if (fd != -EACCES || (flags & O_PATH))
			return fd;
	}
	path_fd = open_by_hint(tree, node);
	if (path_fd < 0 || (flags & O_PATH))
		return path_fd;
	fd = reopen(tree, path_fd, flags);
	close(path_fd);
	return fd;
}

int cmek_tree_node_open(struct cmek_tree *tree, const struct cmek_node *node, int flags)
{
	struct cmek_node again;
	int fd;

	if (node->number == CMEK_NODE_ROOT)
		return cmek_tree_open_at(tree, tree->root_fd, ".", flags | O_DIRECTORY);
	if (node->pin_fd >= 0)
		return open_pinned(tree, node, flags);
	fd = open_unpinned(tree, node, flags);
	if (fd != -ESTALE || cmek_node_get(tree->nodes, node->number, &again))
		return fd;
	/* It may have lost its name, and been pinned, since the caller got it. */
	if (again.pin_fd >= 0)
		fd = open_pinned(tree, &again, flags);
	cmek_node_put(tree->nodes, again.number);
	return fd;
}

int cmek_tree_fd_get(struct cmek_tree *tree, uint64_t number, struct cmek_tree_fd *ret_fd)
{
	int r = at_hand(tree, number, ret_fd), fd;

	if (r != -EAGAIN)
		return r;
	r = cmek_node_get(tree->nodes, number, &ret_fd->node);
	if (r)
		return r;
	fd = cmek_tree_node_open(tree, &ret_fd->node, O_PATH);
	if (fd < 0) {
		cmek_node_put(tree->nodes, number);
		return fd;
	}
	ret_fd->ref = cmek_fd_cache_add(cache_of(tree, &ret_fd->node), number, &fd);
	if (!ret_fd->ref) {
		close(fd);
		cmek_node_put(tree->nodes, number);
		return -ENOMEM;
	}
	ret_fd->fd = cmek_fd_ref_fd(ret_fd->ref);
	return 0;
}

void cmek_tree_fd_put(struct cmek_tree *tree, struct cmek_tree_fd *fd)
{
	cmek_fd_cache_put(cache_of(tree, &fd->node), fd->ref);
	cmek_node_put(tree->nodes, fd->node.number);
}

int cmek_tree_open_store(struct cmek_tree *tree, uint64_t node, int flags)
{
	struct cmek_tree_fd dir;
	struct cmek_node at;
	int r, fd;

	if ((flags & ~(O_ACCMODE | O_DIRECTORY)) || (flags & O_ACCMODE) == O_WRONLY)
		return -EINVAL;
	if (atomic_load(&tree->read_only) && (flags & O_ACCMODE) != O_RDONLY)
		return -EROFS;
	r = cmek_node_get(tree->nodes, node, &at);
	if (r)
		return r;
	/* Opening anything else could block or have effects. */
	if (S_ISREG(at.type)) {
		fd = flags & O_DIRECTORY ? -ENOTDIR : cmek_tree_node_open(tree, &at, flags);
		if (fd >= 0)
			(void)cmek_tree_fd_lower(tree, &fd, tree->fds.user_end); /* else it is for a short time */
	} else if (S_ISDIR(at.type)) {
		fd = cmek_tree_fd_get(tree, node, &dir);
		if (fd == 0) {
			fd = cmek_tree_open_at(tree, dir.fd, ".", flags | O_DIRECTORY);
			cmek_tree_fd_put(tree, &dir);
		}
	} else {
		fd = -EINVAL;
	}
	cmek_node_put(tree->nodes, node);
	return fd;
}
