/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Attributes that are set, targets of symlinks, and the state of the whole store: what needs a node and no name.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "fs/tree/symlink_crypt.h"
#include "fs/tree/tree_impl.h"

#define BLOCKS_A_GROUP 96 /* doc/format.md section 5.1 */
#define MAP_PAGE_BYTES 4096

int cmek_tree_chmod(struct cmek_tree *tree, uint64_t node, mode_t mode)
{
	struct cmek_tree_fd fd;
	int r = atomic_load(&tree->read_only) ? -EROFS : cmek_tree_fd_get(tree, node, &fd);

	if (r)
		return r;
	/* Through /proc, chmod of a symlink is refused by most file systems, not by all. */
	r = S_ISLNK(fd.node.type) ? -EOPNOTSUPP : cmek_store_chmod(fd.fd, mode & 07777);
	cmek_tree_fd_put(tree, &fd);
	return r;
}

int cmek_tree_chown(struct cmek_tree *tree, uint64_t node, uid_t uid, gid_t gid)
{
	struct cmek_tree_fd fd;
	int r = atomic_load(&tree->read_only) ? -EROFS : cmek_tree_fd_get(tree, node, &fd);

	if (r)
		return r;
	r = cmek_store_chown(fd.fd, uid, gid);
	cmek_tree_fd_put(tree, &fd);
	return r;
}

int cmek_tree_utimens(struct cmek_tree *tree, uint64_t node, const struct timespec ts[2])
{
	struct cmek_tree_fd fd;
	int r = atomic_load(&tree->read_only) ? -EROFS : cmek_tree_fd_get(tree, node, &fd);

	if (r)
		return r;
	r = cmek_store_utimens(fd.fd, ts);
	cmek_tree_fd_put(tree, &fd);
	return r;
}

int cmek_tree_readlink(struct cmek_tree *tree, uint64_t node, char *target, size_t size)
{
	char plain[CMEK_SYMLINK_TARGET_MAX];
	struct cmek_tree_fd fd;
	size_t len;
	int r;

	r = cmek_tree_fd_get(tree, node, &fd);
	if (r)
		return r;
	r = S_ISLNK(fd.node.type) ? cmek_tree_read_target(tree, fd.fd, "", plain, &len) : -EINVAL;
	cmek_tree_fd_put(tree, &fd);
	if (r)
		return r;
	if (len > size)
		len = size;
	memcpy(target, plain, len);
	return (int)len;
}

/* Blocks that hold data when each group of them has a map page. */
static fsblkcnt_t plain_blocks(const struct cmek_tree *tree, fsblkcnt_t n)
{
	uint64_t data = (uint64_t)BLOCKS_A_GROUP * tree->params.block_size, all = data + MAP_PAGE_BYTES;

	return (fsblkcnt_t)(n / all * data + n % all * data / all);
}

int cmek_tree_statfs(struct cmek_tree *tree, uint64_t kept_bytes, struct statvfs *ret_st)
{
	struct statvfs st;
	fsblkcnt_t kept;
	int r = cmek_store_statfs(tree->root_fd, &st);

	if (r)
		return r;
	kept = (kept_bytes + st.f_frsize - 1) / st.f_frsize;
	st.f_bavail = st.f_bavail > kept ? st.f_bavail - kept : 0;
	st.f_blocks = plain_blocks(tree, st.f_blocks);
	st.f_bfree = plain_blocks(tree, st.f_bfree);
	st.f_bavail = plain_blocks(tree, st.f_bavail);
	st.f_namemax = CMEK_PLAIN_NAME_MAX;
	*ret_st = st;
	return 0;
}
