/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Requests about attributes: of nodes, of symbolic links, of the file system. It must not decide who may change what:
 * the kernel has checked that (default_permissions).
 */
#include "config.h"

#include <errno.h>
#include <limits.h>

#include "fs/mount/ops.h"

static void overlay(struct cmek_ops *ops, uint64_t node, struct stat *st,
		    void (*ask_again)(struct cmek_ops *ops, uint64_t node, struct cmek_ofile *file))
{
	struct cmek_ofile *file;
	struct timespec mtime;

	if (!S_ISREG(st->st_mode))
		return;
	cmek_content_stat(ops->content, st);
	file = cmek_ofile_find(ops->content, node);
	if (!file)
		return;
	st->st_size = (off_t)cmek_ofile_size(file);
	if (cmek_ofile_mtime(file, &mtime))
		st->st_mtim = mtime;
	ask_again(ops, node, file);
	cmek_ofile_close(file);
}

void cmek_ops_overlay(struct cmek_ops *ops, uint64_t node, struct stat *st)
{
	overlay(ops, node, st, cmek_ops_ask_again);
}

static void reply_getattr(fuse_req_t req, uint64_t node, const struct cmek_reply_site *site)
{
	struct cmek_ops *ops = cmek_ops_of(req);
	struct stat st;
	int rc = cmek_tree_getattr(ops->tree, node, &st);

	if (rc == 0) {
		overlay(ops, node, &st, cmek_ops_keep_asking);
		cmek_reply_attr(req, &st, &ops->timeouts);
	} else {
		cmek_reply_status(req, rc, site);
	}
}

static void answer_getattr(struct cmek_ops *ops, const struct cmek_later *later)
{
	struct cmek_reply_site site = cmek_site(later->what, later->node);
	int rc = cmek_ops_check_write(ops, later->node);

	if (rc == 0)
		reply_getattr(later->req, later->node, &site);
	else
		cmek_reply_status(later->req, rc, &site);
}

void cmek_op_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct cmek_reply_site site = cmek_site("getattr", node);
	struct cmek_later later = { .what = "getattr", .req = req, .answer = answer_getattr, .node = node };
	struct cmek_ops *ops = cmek_ops_of(req);
	uint64_t off = 0;

	/* Only before a write(2) the kernel asks for a handle. */
	if (!fi || !cmek_ops_asks(ops, node, &off)) {
		reply_getattr(req, node, &site);
		return;
	}
	later.drop_from = (off_t)off;
	cmek_ops_later(ops, &later);
}

static int set_size(fuse_req_t req, uint64_t node, off_t size)
{
	struct cmek_ops *ops = cmek_ops_of(req);
	struct cmek_ofile *file;
	int rc;

	if (size < 0)
		return -EINVAL;
	rc = cmek_ofile_open_briefly(ops->content, node, &file);
	if (rc != 0)
		return rc;
	rc = cmek_ops_check_size(ops, file, (uint64_t)size);
	if (rc == 0)
		rc = cmek_content_truncate(file, (uint64_t)size);
	if (rc == 0)
		rc = cmek_ops_kill_privs(req, node, file, cmek_wire_flags().kill_suidgid);
	cmek_ofile_close(file);
	return rc;
}

/*
 * The modification time of a file with changes of data is kept with those, and reaches the store with them: in the store
 * alone it would not outlast them. This is what the kernel does after each write-back of its pages.
 */
static bool set_live_mtime(const struct cmek_ops *ops, uint64_t node, struct timespec mtime)
{
	struct cmek_ofile *file = cmek_ofile_find(ops->content, node);

	if (!file)
		return false;
	cmek_ofile_set_mtime(file, mtime);
	cmek_ofile_close(file);
	return true;
}

/* The change time is the store's to keep. */
static int set_times(const struct cmek_ops *ops, uint64_t node, const struct stat *attr, int to_set)
{
	struct timespec ts[2] = { { 0, UTIME_OMIT }, { 0, UTIME_OMIT } };
	struct stat st;
	int rc;

	if (to_set & FUSE_SET_ATTR_ATIME_NOW)
		ts[0].tv_nsec = UTIME_NOW;
	else if (to_set & FUSE_SET_ATTR_ATIME)
		ts[0] = attr->st_atim;
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		ts[1].tv_nsec = UTIME_NOW;
	else if (to_set & FUSE_SET_ATTR_MTIME)
		ts[1] = attr->st_mtim;
	if (ts[0].tv_nsec == UTIME_OMIT && ts[1].tv_nsec == UTIME_OMIT)
		return 0;
	if (ts[0].tv_nsec == UTIME_OMIT && ts[1].tv_nsec != UTIME_NOW && set_live_mtime(ops, node, ts[1]))
		return 0;
	rc = cmek_tree_utimens(ops->tree, node, ts);
	if (rc != 0 || ts[1].tv_nsec == UTIME_OMIT)
		return rc;
	if (ts[1].tv_nsec == UTIME_NOW) {
		rc = cmek_tree_getattr(ops->tree, node, &st);
		ts[1] = st.st_mtim;
	}
	if (rc == 0)
		(void)set_live_mtime(ops, node, ts[1]); /* one without a live state has it in the store */
	return rc;
}

/*
 * What the kernel sends before an fsync, when a write to its cache has moved the times. It goes by its own times then
 * (trust_local_cmtime in fs/fuse) and gets back those that it sent: a look at the store's would have the next write move
 * them again, and so make each fsync one request longer.
 */
static void reply_flushed_times(fuse_req_t req, uint64_t node, const struct stat *attr, const struct cmek_reply_site *site)
{
	struct cmek_ops *ops = cmek_ops_of(req);
	struct stat st;
	int rc = cmek_tree_getattr_timeless(ops->tree, node, &st);

	if (rc == 0) {
		cmek_ops_overlay(ops, node, &st);
		st.st_ctim = attr->st_ctim;
		cmek_reply_attr(req, &st, &ops->timeouts);
	} else {
		cmek_reply_status(req, rc, site);
	}
}

#define FLUSHED_TIMES (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_CTIME)
#define SET_OWNER (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)
#define SET_TIMES (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW)

/*
 * What may fail for lack of room goes first. The owner goes before the mode, for chown in the store takes away suid and
 * sgid, and the mode the kernel sends along is the one that shall be. Times are last: all others move them.
 */
void cmek_op_setattr(fuse_req_t req, fuse_ino_t node, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct cmek_reply_site site = cmek_site("setattr", node);
	struct cmek_ops *ops = cmek_ops_of(req);
	int rc = 0;

	(void)fi;
	if (to_set == FLUSHED_TIMES && set_live_mtime(ops, node, attr->st_mtim)) {
		reply_flushed_times(req, node, attr, &site);
		return;
	}
	if (to_set == FUSE_SET_ATTR_CTIME)
		rc = cmek_ops_chown_nothing(req, node);
	if (to_set & FUSE_SET_ATTR_SIZE)
		rc = set_size(req, node, attr->st_size);
	if (rc == 0 && (to_set & SET_OWNER))
		rc = cmek_tree_chown(ops->tree, node, to_set & FUSE_SET_ATTR_UID ? attr->st_uid : (uid_t)-1,
				     to_set & FUSE_SET_ATTR_GID ? attr->st_gid : (gid_t)-1);
	if (rc == 0 && (to_set & FUSE_SET_ATTR_MODE))
		rc = cmek_tree_chmod(ops->tree, node, attr->st_mode & 07777);
	if (to_set == FUSE_SET_ATTR_CTIME || (to_set & (SET_OWNER | FUSE_SET_ATTR_MODE))) {
		cmek_ops_privs_changed(ops, node);
		cmek_ops_metadata_changed(ops, node);
	}
	if (rc == 0 && (to_set & SET_TIMES))
		rc = set_times(ops, node, attr, to_set);
	if (rc == 0)
		reply_getattr(req, node, &site);
	else
		cmek_reply_status(req, rc, &site);
}

void cmek_op_readlink(fuse_req_t req, fuse_ino_t node)
{
	struct cmek_reply_site site = cmek_site("readlink", node);
	char target[PATH_MAX];
	int n = cmek_tree_readlink(cmek_ops_of(req)->tree, node, target, sizeof(target) - 1);

	if (n < 0) {
		cmek_reply_status(req, n, &site);
		return;
	}
	target[n] = '\0';
	cmek_reply_target(req, target);
}

void cmek_op_statfs(fuse_req_t req, fuse_ino_t node)
{
	struct cmek_reply_site site = cmek_site("statfs", node);
	struct statvfs st;
	struct cmek_room_status room;
	int rc;

	(void)cmek_room_level(cmek_ops_of(req)->room); /* it looks */
	cmek_room_status(cmek_ops_of(req)->room, &room);
	rc = cmek_tree_statfs(cmek_ops_of(req)->tree, room.kept_bytes, &st);

	if (rc == 0)
		cmek_reply_statfs(req, &st);
	else
		cmek_reply_status(req, rc, &site);
}
