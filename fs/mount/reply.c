/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Answers to the kernel, and the one table from internal errors to those of users. It must not know how an answer was
 * found, and it never logs plain names or contents.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "fs/mount/ops.h"
#include "fs/mount/reply.h"

/*
 * What a user may see, and what stands for it otherwise. What is not listed is EIO: an errno that has no meaning for
 * the call the user made (ELOOP from a symlink swapped into the store, ENOTCONN from a store over a network) would
 * send them looking in the wrong place. ENOSYS in particular must not get out, the kernel would never ask again.
 */
static const struct errno_row {
	int internal;
	int user;
} errno_table[] = {
	{ EPERM, EPERM },
	{ ENOENT, ENOENT },
	{ EIO, EIO },
	{ ENXIO, ENXIO },
	{ E2BIG, E2BIG },
	{ ENOMEM, ENOMEM },
	{ EACCES, EACCES },
	{ EBUSY, EBUSY },
	{ EEXIST, EEXIST },
	{ EXDEV, EXDEV },
	{ ENOTDIR, ENOTDIR },
	{ EISDIR, EISDIR },
	{ EINVAL, EINVAL },
	{ ENFILE, ENFILE },
	{ EMFILE, ENFILE }, /* it is the daemon that has too many open files, not the user */
	{ ETXTBSY, ETXTBSY },
	{ EFBIG, EFBIG },
	{ ENOSPC, ENOSPC },
	{ EROFS, EROFS },
	{ EMLINK, EMLINK },
	{ ERANGE, ERANGE },
	{ ENAMETOOLONG, ENAMETOOLONG },
	{ ENOTEMPTY, ENOTEMPTY },
	{ EOVERFLOW, EOVERFLOW },
	{ ENODATA, ENODATA },
	{ EOPNOTSUPP, EOPNOTSUPP },
	{ ESTALE, ESTALE },
	{ EDQUOT, EDQUOT },
	{ EKEYREVOKED, EKEYREVOKED }, /* the volume is locked, or the data is under a key that was retired */
	{ EBADMSG, EIO },             /* does not authenticate */
	{ ENOKEY, EIO },              /* names a data key that the header does not know */
	{ ENOLINK, EIO },             /* a directory without its id, a long target without its rest */
};

int cmek_reply_user_errno(int error)
{
	size_t i;

	if (error == 0)
		return 0;
	for (i = 0; i < sizeof(errno_table) / sizeof(errno_table[0]); i++) {
		if (errno_table[i].internal == -error)
			return errno_table[i].user;
	}
	return EIO;
}

const char *cmek_reply_cause(int error)
{
	switch (error) {
	case -EBADMSG:
		return "does not authenticate";
	case -ENOKEY:
		return "is under a data key that the header does not know";
	case -ENOLINK:
		return "is incomplete: a symbolic link of cmekfs that belongs to it is not in the store";
	default:
		return strerror(-error);
	}
}

static void tell_unauthentic(fuse_req_t req, uint64_t node, uint64_t offset, const char *what)
{
	const struct cmek_ops *ops = cmek_ops_of(req);

	if (ops->unauthentic)
		ops->unauthentic(ops->unauthentic_arg, node, offset, what);
}

void cmek_reply_status(fuse_req_t req, int error, const struct cmek_reply_site *site)
{
	static struct cmek_log_limit limit;
	int user = cmek_reply_user_errno(error);
	char where[CMEK_TREE_WHERE_ROOM];

	if (error == -EBADMSG || error == -ENOLINK || error == -ENOKEY)
		tell_unauthentic(req, site->node, site->offset, site->what);
	if (user == EIO)
		cmek_tree_where(cmek_ops_of(req)->tree, site->node, where);
	if (user == EIO && site->offset != UINT64_MAX)
		cmek_log_limited(&limit, CMEK_LOG_ERROR, "%s: %s, byte %" PRIu64 ": %s", site->what, where, site->offset,
				 cmek_reply_cause(error));
	else if (user == EIO)
		cmek_log_limited(&limit, CMEK_LOG_ERROR, "%s: %s: %s", site->what, where, cmek_reply_cause(error));
	(void)fuse_reply_err(req, user); /* fails only when the asker is gone */
}

void cmek_reply_log_bad_entries(fuse_req_t req, uint64_t node, unsigned n)
{
	static struct cmek_log_limit limit;
	char where[CMEK_TREE_WHERE_ROOM];

	tell_unauthentic(req, node, UINT64_MAX, "readdir");
	cmek_tree_where(cmek_ops_of(req)->tree, node, where);
	cmek_log_limited(&limit, CMEK_LOG_ERROR, "readdir: %s: left out %u entries that do not authenticate", where, n);
}

void cmek_reply_log_size(fuse_req_t req, uint64_t node, bool mended)
{
	static struct cmek_log_limit limit;
	char where[CMEK_TREE_WHERE_ROOM];

	cmek_tree_where(cmek_ops_of(req)->tree, node, where);
	cmek_log_limited(&limit, CMEK_LOG_WARNING, "open: %s: the store file has another length than was sealed%s", where,
			 mended ? ", cut to that" : "");
}

void cmek_reply_fill_entry(struct fuse_entry_param *ret_param, const struct cmek_entry *entry,
			   const struct cmek_reply_timeouts *timeouts)
{
	memset(ret_param, 0, sizeof(*ret_param));
	/* The node number has its generation inside, so this one says nothing. */
	ret_param->ino = entry->node;
	ret_param->attr = entry->st;
	ret_param->attr_timeout = timeouts->attr_s;
	ret_param->entry_timeout = timeouts->entry_s;
}

int cmek_reply_entry(fuse_req_t req, const struct cmek_entry *entry, const struct cmek_reply_timeouts *timeouts)
{
	struct fuse_entry_param param;

	cmek_reply_fill_entry(&param, entry, timeouts);
	return fuse_reply_entry(req, &param);
}

void cmek_reply_no_entry(fuse_req_t req, const struct cmek_reply_timeouts *timeouts)
{
	struct fuse_entry_param param;

	memset(&param, 0, sizeof(param));
	param.entry_timeout = timeouts->negative_s;
	(void)fuse_reply_entry(req, &param);
}

int cmek_reply_create(fuse_req_t req, const struct cmek_entry *entry, const struct cmek_reply_timeouts *timeouts,
		      const struct fuse_file_info *fi)
{
	struct fuse_entry_param param;

	cmek_reply_fill_entry(&param, entry, timeouts);
	return fuse_reply_create(req, &param, fi);
}

void cmek_reply_attr(fuse_req_t req, const struct stat *st, const struct cmek_reply_timeouts *timeouts)
{
	(void)fuse_reply_attr(req, st, timeouts->attr_s);
}

int cmek_reply_open(fuse_req_t req, const struct fuse_file_info *fi)
{
	return fuse_reply_open(req, fi);
}

void cmek_reply_data(fuse_req_t req, const void *data, size_t len)
{
	(void)fuse_reply_buf(req, data, len);
}

void cmek_reply_written(fuse_req_t req, size_t len)
{
	(void)fuse_reply_write(req, len);
}

void cmek_reply_length(fuse_req_t req, size_t len)
{
	(void)fuse_reply_xattr(req, len);
}

void cmek_reply_offset(fuse_req_t req, uint64_t off)
{
	(void)fuse_reply_lseek(req, (off_t)off);
}

void cmek_reply_target(fuse_req_t req, const char *target)
{
	(void)fuse_reply_readlink(req, target);
}

void cmek_reply_statfs(fuse_req_t req, const struct statvfs *st)
{
	(void)fuse_reply_statfs(req, st);
}

void cmek_reply_none(fuse_req_t req)
{
	fuse_reply_none(req);
}
