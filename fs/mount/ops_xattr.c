/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Requests about extended attributes, and the privileges that files lose when they are changed. It must not know how
 * attributes are stored.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/mount/ops.h"
#include "fs/mount/wire.h"

#define CAPABILITY "security.capability"
#define VALUE_MAX 65536 /* the longest value and list of Linux */
#define GROUPS_ASKED 256

/* What struct cmek_ofile_host has of an open file: bits, and above them a count of changes. */
#define NO_CAPS 1u
#define NO_SUIDGID 2u
#define CHANGE 4u

void cmek_ops_privs_changed(const struct cmek_ops *ops, uint64_t node)
{
	struct cmek_ofile *file = cmek_ofile_find(ops->content, node);
	atomic_uint *word;
	unsigned seen;

	if (!file)
		return;
	word = &cmek_ofile_host(file)->privs;
	seen = atomic_load(word);
	while (!atomic_compare_exchange_weak(word, &seen, (seen + CHANGE) & ~(NO_CAPS | NO_SUIDGID)))
		;
	cmek_ofile_close(file);
}

/* Root, too, in place of who has CAP_FSETID. Asks /proc for the groups of the caller; who can't be asked has none. */
static bool in_group(fuse_req_t req, gid_t gid)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	gid_t groups[GROUPS_ASKED];
	int n, i;

	if (ctx->uid == 0 || ctx->gid == gid)
		return true;
	n = fuse_req_getgroups(req, GROUPS_ASKED, groups);
	for (i = 0; i < n && i < GROUPS_ASKED; i++)
		if (groups[i] == gid)
			return true;
	return false;
}

/* As the kernel does it: sgid without execution for the group may stay if the caller is in that. */
static mode_t without_suidgid(fuse_req_t req, const struct stat *st)
{
	mode_t mode = st->st_mode & 07777 & ~(mode_t)S_ISUID;

	if ((mode & S_ISGID) && ((mode & S_IXGRP) || !in_group(req, st->st_gid)))
		mode &= ~(mode_t)S_ISGID;
	return mode;
}

/* *ret_mode: what is left. */
static int kill_suidgid(fuse_req_t req, uint64_t node, bool *changed, mode_t *ret_mode)
{
	struct cmek_ops *ops = cmek_ops_of(req);
	struct stat st;
	int rc = cmek_tree_getattr(ops->tree, node, &st);

	if (rc != 0)
		return rc;
	*ret_mode = without_suidgid(req, &st);
	if (*ret_mode == (st.st_mode & 07777))
		return 0;
	*changed = true;
	return cmek_tree_chmod(ops->tree, node, *ret_mode);
}

static int kill_caps(const struct cmek_ops *ops, uint64_t node, bool *changed)
{
	int rc = cmek_tree_removexattr(ops->tree, node, CAPABILITY);

	if (rc == 0)
		*changed = true;
	/* Not ours to remove: then we are not privileged, and the store's kernel does it with our write. */
	return rc == -ENODATA || rc == -EOPNOTSUPP || rc == -EPERM ? 0 : rc;
}

int cmek_ops_kill_privs(fuse_req_t req, uint64_t node, struct cmek_ofile *file, bool suidgid)
{
	struct cmek_ops *ops = cmek_ops_of(req);
	atomic_uint *word = &cmek_ofile_host(file)->privs;
	unsigned seen = atomic_load(word), gone = NO_CAPS | (suidgid ? NO_SUIDGID : 0);
	bool changed = false;
	mode_t mode = 0;
	int rc = 0;

	if ((seen & gone) == gone)
		return 0;
	if (!(seen & NO_CAPS))
		rc = kill_caps(ops, node, &changed);
	if (rc == 0 && suidgid && !(seen & NO_SUIDGID))
		rc = kill_suidgid(req, node, &changed, &mode);
	if (changed) {
		cmek_ofile_privs_gone(file);
		/* The kernel goes by the mode it knows when it runs a program. It may know nothing of the inode. */
		(void)fuse_lowlevel_notify_inval_inode(ops->session, node, -1, 0);
	}
	if (mode & S_ISGID)
		gone = NO_CAPS; /* the next caller may not be in the group */
	/* Not if something was set meanwhile. */
	if (rc == 0)
		(void)atomic_compare_exchange_strong(word, &seen, seen | gone);
	return rc;
}

int cmek_ops_chown_nothing(fuse_req_t req, uint64_t node)
{
	struct cmek_ops *ops = cmek_ops_of(req);
	bool changed = false;
	struct stat st;
	mode_t mode;
	int rc = cmek_tree_getattr(ops->tree, node, &st);

	if (rc != 0 || !S_ISREG(st.st_mode))
		return rc;
	mode = without_suidgid(req, &st);
	if (mode != (st.st_mode & 07777)) {
		if (fuse_req_ctx(req)->uid != 0 && fuse_req_ctx(req)->uid != st.st_uid)
			return -EPERM;
		rc = cmek_tree_chmod(ops->tree, node, mode);
	}
	return rc == 0 ? kill_caps(ops, node, &changed) : rc;
}

/* Answers with a value or a list of rc bytes, or its length when none of it was asked for, or an error. */
static void reply_value(fuse_req_t req, size_t size, const void *value, int rc, const struct cmek_reply_site *site)
{
	if (rc < 0)
		cmek_reply_status(req, rc, site);
	else if (size == 0)
		cmek_reply_length(req, (size_t)rc);
	else
		cmek_reply_data(req, value, (size_t)rc);
}

void cmek_op_getxattr(fuse_req_t req, fuse_ino_t node, const char *name, size_t size)
{
	struct cmek_reply_site site = cmek_site("getxattr", node);
	void *value = cmek_ops_read_buffer(cmek_ops_of(req));
	int rc = -ENOMEM;

	if (value)
		rc = cmek_tree_getxattr(cmek_ops_of(req)->tree, node, name, value, size < VALUE_MAX ? size : VALUE_MAX);
	reply_value(req, size, value, rc, &site);
}

void cmek_op_listxattr(fuse_req_t req, fuse_ino_t node, size_t size)
{
	struct cmek_reply_site site = cmek_site("listxattr", node);
	bool trusted = fuse_req_ctx(req)->uid == 0; /* in place of CAP_SYS_ADMIN, which the request does not tell */
	void *list = cmek_ops_read_buffer(cmek_ops_of(req));
	int rc = -ENOMEM;

	if (list)
		rc = cmek_tree_listxattr(cmek_ops_of(req)->tree, node, trusted, list, size < VALUE_MAX ? size : VALUE_MAX);
	reply_value(req, size, list, rc, &site);
}

/* The caller of an ACL's change is not in the file's group. */
static int kill_sgid(const struct cmek_ops *ops, uint64_t node)
{
	struct stat st;
	int rc = cmek_tree_getattr(ops->tree, node, &st);

	if (rc == 0 && (st.st_mode & S_ISGID))
		rc = cmek_tree_chmod(ops->tree, node, st.st_mode & 07777 & ~(mode_t)S_ISGID);
	return rc;
}

void cmek_op_setxattr(fuse_req_t req, fuse_ino_t node, const char *name, const char *value, size_t size, int flags)
{
	struct cmek_reply_site site = cmek_site("setxattr", node);
	bool no_sgid = cmek_wire_flags().kill_sgid;
	struct cmek_ops *ops = cmek_ops_of(req);
	int rc = 0;

	/* What was written before would take them away again when it gets to the store. */
	if (strcmp(name, CAPABILITY) == 0)
		rc = cmek_ops_commit(ops, node);
	if (rc == 0)
		rc = cmek_tree_setxattr(ops->tree, node, name, value, size, flags);
	if (rc == 0 && no_sgid)
		rc = kill_sgid(ops, node);
	cmek_ops_privs_changed(ops, node);
	cmek_ops_metadata_changed(ops, node);
	cmek_reply_status(req, rc, &site);
}

void cmek_op_removexattr(fuse_req_t req, fuse_ino_t node, const char *name)
{
	struct cmek_reply_site site = cmek_site("removexattr", node);
	struct cmek_ops *ops = cmek_ops_of(req);
	int rc = cmek_tree_removexattr(ops->tree, node, name);

	cmek_ops_metadata_changed(ops, node);
	cmek_reply_status(req, rc, &site);
}
