/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Requests about the space of regular files: fallocate, and lseek for data and holes. It must not know blocks or how
 * space is laid out.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>

#include "fs/mount/ops.h"

void cmek_op_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct cmek_reply_site site = { "fallocate", node, (uint64_t)off };
	struct cmek_ops *ops = cmek_ops_of(req);
	struct cmek_ofile *file = cmek_ofile_find(ops->content, node);
	struct timespec now;
	int rc = -EIO; /* an open file has a state */

	(void)fi;
	if (file)
		rc = mode & FALLOC_FL_PUNCH_HOLE ? 0 : cmek_ops_check_room(ops, (uint64_t)off + (uint64_t)len);
	/* The kernel does not say whether the caller has CAP_FSETID. */
	if (rc == 0)
		rc = cmek_ops_kill_privs(req, node, file, fuse_req_ctx(req)->uid != 0);
	if (rc == 0)
		rc = off < 0 || len <= 0 ? -EINVAL : cmek_content_fallocate(file, mode, (uint64_t)off, (uint64_t)len);
	if (rc == 0 && !ops->kernel_sets_mtime) {
		(void)clock_gettime(CLOCK_REALTIME_COARSE, &now); /* can't fail */
		cmek_ofile_set_mtime(file, now);
	}
	cmek_reply_status(req, rc, &site);
	cmek_ofile_close(file);
}

static void answer_seek(struct cmek_ops *ops, const struct cmek_later *seek)
{
	struct cmek_reply_site site = { "lseek", seek->node, seek->off };
	struct cmek_ofile *file = cmek_ofile_find(ops->content, seek->node);
	uint64_t off;
	int rc = file ? cmek_content_seek(file, seek->whence, seek->off, &off) : -EIO;

	if (rc == 0)
		cmek_reply_offset(seek->req, off);
	else
		cmek_reply_status(seek->req, rc, &site);
	cmek_ofile_close(file);
}

/*
 * The kernel asks where data is without having written what it holds: pages of its writeback cache, and without that the
 * ones that were changed through a mapping.
 */
void cmek_op_lseek(fuse_req_t req, fuse_ino_t node, off_t off, int whence, struct fuse_file_info *fi)
{
	struct cmek_later seek = { .what = "lseek", .req = req, .answer = answer_seek, .node = node, .drop_from = off, .off = (uint64_t)off,
				   .whence = whence };
	struct cmek_reply_site site = cmek_site("lseek", node);

	(void)fi;
	if (off < 0)
		cmek_reply_status(req, -ENXIO, &site);
	else
		cmek_ops_later(cmek_ops_of(req), &seek);
}
