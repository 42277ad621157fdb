/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The tree as a whole: making it, looking things up, and turning the store's attributes into plain ones. Knows no file
 * contents; the plain size is the content layer's arithmetic.
 */
#include "config.h"

#include "fs/tree/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fs/content/content.h"
#include "fs/tree/symlink_crypt.h"
#include "fs/tree/tree_impl.h"

#define DEFAULT_MAX_NODES (UINT64_C(1) << 24)
#define MAX_FDS 65536 /* by default: each one keeps an inode of the store in memory */
#define MIN_FDS 64
#define MAX_FILE_FDS 256 /* of them, and a quarter of all at most: for what is no directory */

static void node_gone(void *arg, uint64_t number, mode_t type)
{
	struct cmek_tree *tree = arg;

	if (!S_ISDIR(type)) {
		cmek_fd_cache_drop(tree->files, number);
		return;
	}
	cmek_fd_cache_drop(tree->dirs, number);
	cmek_tree_streams_drop(tree->streams, number);
}

/* How many descriptors are kept; first as many are allowed as we may have. */
static unsigned fd_budget(const struct cmek_tree_params *params)
{
	struct rlimit limit;
	rlim_t n = MIN_FDS * 4;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		if (limit.rlim_cur < limit.rlim_max) {
			limit.rlim_cur = limit.rlim_max;
			(void)setrlimit(RLIMIT_NOFILE, &limit); /* then it stays as it is */
			(void)getrlimit(RLIMIT_NOFILE, &limit);
		}
		n = limit.rlim_cur;
	}
	if (params->max_fds)
		return params->max_fds < n / 2 ? params->max_fds : (unsigned)(n / 2);
	if (n / 4 > MAX_FDS)
		return MAX_FDS;
	return n / 4 < MIN_FDS ? MIN_FDS : (unsigned)(n / 4);
}

/* Looks at the store's root: its node, and whether handles can be opened. */
static int probe_root(struct cmek_tree *tree, struct cmek_error *err)
{
	struct cmek_store_stat st;
	struct cmek_node_key key;
	uint64_t number;
	int r, fd;

	r = cmek_store_stat(tree->root_fd, "", &st);
	if (r == 0)
		r = cmek_tree_key(&st, tree->root_fd, "", &key);
	if (r)
		return cmek_error_sys(err, -r, "store directory");
	if (!S_ISDIR(st.st.st_mode))
		return cmek_error_sys(err, ENOTDIR, "store directory");
	tree->dev = st.st.st_dev;
	tree->has_mount_id = st.has_mount_id;
	tree->mount_id = st.mount_id;
	if (key.handle.len) {
		fd = cmek_store_open_handle(tree->root_fd, &key.handle, O_PATH);
		tree->by_handle = fd >= 0;
		if (fd >= 0)
			close(fd);
	}
	r = cmek_node_enter(tree->nodes, &key, st.st.st_mode, 0, NULL, false, false, &number);
	return r ? cmek_error_sys(err, -r, "node table") : 0;
}

int cmek_tree_new(int store_fd, struct cmek_keyring *ring, const struct cmek_tree_params *params,
		  struct cmek_tree **ret_tree, struct cmek_error *err)
{
	const unsigned n_fds = fd_budget(params), n_files = n_fds / 4 < MAX_FILE_FDS ? n_fds / 4 : MAX_FILE_FDS;
	struct cmek_tree *tree = calloc(1, sizeof *tree);
	unsigned i;
	int r;

	if (!tree) {
		close(store_fd);
		return cmek_error_sys(err, ENOMEM, "tree");
	}
	tree->params = *params;
	cmek_fds_plan(&tree->fds);
	tree->read_only = params->read_only;
	tree->ring = ring;
	tree->links_fd = -1;
	pthread_mutex_init(&tree->links_lock, NULL);
	pthread_mutex_init(&tree->moves.lock, NULL);
	for (i = 0; i < CMEK_TREE_DIR_LOCKS; i++)
		pthread_rwlock_init(&tree->dir_locks[i], NULL);
	for (i = 0; i < CMEK_TREE_NAME_LOCKS; i++)
		pthread_mutex_init(&tree->name_locks[i], NULL);
	for (i = 0; i < CMEK_TREE_XATTR_LOCKS; i++)
		pthread_mutex_init(&tree->xattr_locks[i], NULL);
	cmek_cred_init(&tree->self);
	/* A descriptor of our own kind: what we were given may be an O_PATH one. */
	tree->root_fd = cmek_store_open(store_fd, ".", O_RDONLY | O_DIRECTORY);
	r = tree->root_fd < 0 ? cmek_error_sys(err, -tree->root_fd, "store directory") : 0;
	close(store_fd);
	if (r == 0)
		r = cmek_node_table_new(params->max_nodes ? params->max_nodes : DEFAULT_MAX_NODES, node_gone, tree,
					&tree->nodes, err);
	if (r == 0)
		r = cmek_fd_cache_new(n_fds - n_files, tree->fds.keep_end, &tree->dirs, err);
	if (r == 0)
		r = cmek_fd_cache_new(n_files, tree->fds.keep_end, &tree->files, err);
	if (r == 0) {
		r = cmek_tree_streams_new(&tree->streams);
		if (r)
			cmek_error_sys(err, -r, "tree");
		tree->flush_names = !cmek_store_orders_names(tree->root_fd);
	}
	if (r == 0)
		r = probe_root(tree, err);
	/* What a mount that died had marked for a flush is not known any more. */
	if (r == 0 && tree->flush_names && !params->read_only) {
		r = cmek_store_syncfs(tree->root_fd);
		if (r)
			cmek_error_sys(err, -r, "flushing the store");
	}
	if (r) {
		cmek_tree_free(tree);
		return r;
	}
	*ret_tree = tree;
	return 0;
}

void cmek_tree_free(struct cmek_tree *tree)
{
	unsigned i;

	if (!tree)
		return;
	if (tree->nodes)
		(void)cmek_tree_moves_end(tree);
	cmek_tree_streams_free(tree->streams);
	cmek_fd_cache_free(tree->files);
	cmek_fd_cache_free(tree->dirs);
	cmek_node_table_free(tree->nodes);
	if (tree->links_fd >= 0)
		close(tree->links_fd);
	if (tree->root_fd >= 0)
		close(tree->root_fd);
	for (i = 0; i < CMEK_TREE_DIR_LOCKS; i++)
		pthread_rwlock_destroy(&tree->dir_locks[i]);
	for (i = 0; i < CMEK_TREE_NAME_LOCKS; i++)
		pthread_mutex_destroy(&tree->name_locks[i]);
	for (i = 0; i < CMEK_TREE_XATTR_LOCKS; i++)
		pthread_mutex_destroy(&tree->xattr_locks[i]);
	pthread_mutex_destroy(&tree->links_lock);
	pthread_mutex_destroy(&tree->moves.lock);
	free(tree);
}

void cmek_tree_set_read_only(struct cmek_tree *tree)
{
	atomic_store(&tree->read_only, true);
}

/* Attributes and entries */

/* The stored length tells the plain one, except where the link is full and may go on elsewhere. */
static int symlink_size(struct cmek_tree *tree, int dirfd, const char *name, off_t stored, off_t *ret_size)
{
	char text[CMEK_SYMLINK_TEXT_MAX + 1];
	struct cmek_symlink_head head;
	ssize_t n;

	*ret_size = 0;
	if (stored >= 6 && stored < (off_t)tree->params.symlink_max) {
		*ret_size = (off_t)cmek_symlink_plain_len((size_t)stored - 6);
		return 0;
	}
	n = cmek_store_readlink(dirfd, name, text, sizeof text);
	if (n < 0)
		return n == -ENAMETOOLONG || n == -EINVAL ? 0 : (int)n;
	/* A damaged one is seen with size 0; reading it says what is wrong. */
	if (cmek_symlink_parse(text, (size_t)n, tree->params.symlink_max, &head) == 0)
		*ret_size = (off_t)cmek_symlink_plain_len(head.e_len);
	return 0;
}

int cmek_tree_plain_stat(struct cmek_tree *tree, int dirfd, const char *name, struct stat *st)
{
	if (S_ISREG(st->st_mode))
		st->st_size = (off_t)cmek_content_plain_size(tree->params.block_size, (uint64_t)st->st_size);
	st->st_blksize = (blksize_t)tree->params.block_size;
	return S_ISLNK(st->st_mode) ? symlink_size(tree, dirfd, name, st->st_size, &st->st_size) : 0;
}

int cmek_tree_check_mount(const struct cmek_tree *tree, const struct cmek_store_stat *st)
{
	if (tree->has_mount_id && st->has_mount_id)
		return st->mount_id == tree->mount_id ? 0 : -EXDEV;
	return st->st.st_dev == tree->dev ? 0 : -EXDEV;
}

int cmek_tree_key(const struct cmek_store_stat *st, int dirfd, const char *name, struct cmek_node_key *ret_key)
{
	ret_key->dev = st->st.st_dev;
	ret_key->ino = st->st.st_ino;
	return cmek_store_handle(dirfd, name, &ret_key->handle);
}

int cmek_tree_enter(struct cmek_tree *tree, const struct cmek_tree_place *place, int fd, struct cmek_store_stat *st,
		    struct cmek_entry *ret_entry)
{
	int dirfd = fd >= 0 ? fd : place->dir.fd.fd, r;
	const char *name = fd >= 0 ? "" : place->name->entry;
	struct cmek_node_key key;
	struct stat plain;

	r = fd >= 0 ? cmek_store_stat(fd, "", st) : 0;
	if (r == 0)
		r = cmek_tree_check_mount(tree, st);
	if (r)
		return r;
	plain = st->st;
	r = cmek_tree_plain_stat(tree, dirfd, name, &plain);
	if (r == 0)
		r = cmek_tree_key(st, dirfd, name, &key);
	/* Of a file with several names the first one seen is as good a hint as any, as long as it is there. */
	if (r == 0)
		r = cmek_node_enter(tree->nodes, &key, st->st.st_mode, place->dir.fd.node.number, place->name->entry,
				    S_ISDIR(st->st.st_mode) || st->st.st_nlink == 1,
				    S_ISREG(st->st.st_mode) && plain.st_size > 0, &ret_entry->node);
	if (r == 0)
		ret_entry->st = plain;
	return r;
}

static int look_up(struct cmek_tree *tree, struct cmek_tree_place *place, struct cmek_entry *ret_entry)
{
	struct cmek_tree_locks locks = { 0 };
	struct cmek_store_stat st;
	int r;

	cmek_tree_place_lock(&locks, place);
	cmek_tree_lock_names(tree, &locks);
	r = cmek_tree_place_find(tree, place, &st);
	if (r == 0)
		r = cmek_tree_place_check_link(place);
	if (r == 0)
		r = cmek_tree_enter(tree, place, -1, &st, ret_entry);
	cmek_tree_unlock(tree, &locks);
	return r;
}

int cmek_tree_lookup(struct cmek_tree *tree, uint64_t parent, const char *name, struct cmek_entry *ret_entry)
{
	struct cmek_tree_place place;
	int r;

	r = cmek_tree_place_get(tree, parent, name, &place);
	if (r)
		return r;
	r = cmek_tree_place_name(tree, &place, name);
	if (r == 0)
		r = look_up(tree, &place, ret_entry);
	while (r == -ENOENT && cmek_tree_place_moved(tree, &place, name))
		r = look_up(tree, &place, ret_entry);
	cmek_tree_place_put(tree, &place);
	return r;
}

void cmek_tree_forget(struct cmek_tree *tree, uint64_t node, uint64_t n_lookups)
{
	cmek_node_forget(tree->nodes, node, n_lookups);
}

int cmek_tree_keep(struct cmek_tree *tree, uint64_t node)
{
	struct cmek_node copy;

	return cmek_node_get(tree->nodes, node, &copy);
}

void cmek_tree_let_go(struct cmek_tree *tree, uint64_t node)
{
	cmek_node_put(tree->nodes, node);
}

uint64_t cmek_tree_next_node(struct cmek_tree *tree, uint64_t *index)
{
	return cmek_node_next(tree->nodes, index);
}

void cmek_tree_retire(struct cmek_tree *tree, uint64_t node)
{
	cmek_node_retire(tree->nodes, node);
}

void cmek_tree_where(struct cmek_tree *tree, uint64_t node, char text[CMEK_TREE_WHERE_ROOM])
{
	char path[300], entry[256];
	size_t at = sizeof(path) - 1, len;
	uint64_t number = node, parent;

	path[at] = '\0';
	while (number != CMEK_NODE_ROOT && cmek_node_hint(tree->nodes, number, &parent, entry) == 0) {
		len = strlen(entry) + (path[at] ? 1 : 0);
		if (at < len + 4) {
			at -= 4;
			memcpy(path + at, ".../", 4);
			break;
		}
		if (path[at])
			path[--at] = '/';
		at -= strlen(entry);
		memcpy(path + at, entry, strlen(entry));
		number = parent;
	}
	(void)snprintf(text, CMEK_TREE_WHERE_ROOM, "inode %" PRIu64 " (%s)", cmek_node_inode(tree->nodes, node),
		       path[at] ? path + at : node == CMEK_NODE_ROOT ? "." : "no name");
}

bool cmek_tree_has_data(struct cmek_tree *tree, uint64_t node)
{
	return cmek_node_has_data(tree->nodes, node);
}

void cmek_tree_set_data(struct cmek_tree *tree, uint64_t node, bool data)
{
	cmek_node_set_data(tree->nodes, node, data);
}

static int node_stat(struct cmek_tree *tree, uint64_t node,
		     int (*stat_fn)(int dirfd, const char *name, struct cmek_store_stat *ret_stat), struct stat *ret_st)
{
	struct cmek_store_stat st;
	struct cmek_tree_fd fd;
	int r;

	r = cmek_tree_fd_get(tree, node, &fd);
	if (r)
		return r;
	r = stat_fn(fd.fd, "", &st);
	if (r == 0)
		r = cmek_tree_plain_stat(tree, fd.fd, "", &st.st);
	if (r == 0)
		*ret_st = st.st;
	cmek_tree_fd_put(tree, &fd);
	return r;
}

int cmek_tree_getattr(struct cmek_tree *tree, uint64_t node, struct stat *ret_st)
{
	return node_stat(tree, node, cmek_store_stat, ret_st);
}

int cmek_tree_getattr_timeless(struct cmek_tree *tree, uint64_t node, struct stat *ret_st)
{
	return node_stat(tree, node, cmek_store_stat_timeless, ret_st);
}
