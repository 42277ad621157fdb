/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Requests about names: look-ups, what makes, moves and removes entries, and listings. It must not know how names are
 * stored, nor touch the store itself.
 */
#include "config.h"

#include <errno.h>
#include <linux/fs.h>
#include <string.h>

#include "fs/mount/ops.h"

struct cmek_cred cmek_ops_caller(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct cmek_cred cred = { ctx->uid, ctx->gid, ctx->umask };

	return cred;
}

int cmek_ops_commit(const struct cmek_ops *ops, uint64_t node)
{
	struct cmek_ofile *file = cmek_ofile_find(ops->content, node);
	int rc;

	if (!file)
		return 0;
	rc = cmek_content_commit(file);
	cmek_ofile_close(file);
	return rc;
}

void cmek_ops_metadata_changed(const struct cmek_ops *ops, uint64_t node)
{
	struct cmek_ofile *file = cmek_ofile_find(ops->content, node);

	if (!file)
		return;
	cmek_ofile_metadata_changed(file);
	cmek_ofile_close(file);
}

/* Answers a request that gave an entry or an error. A lookup that the kernel did not get to know is undone. */
static void reply_entry_or_error(fuse_req_t req, int rc, struct cmek_entry *entry, const struct cmek_reply_site *site)
{
	struct cmek_ops *ops = cmek_ops_of(req);

	if (rc != 0) {
		cmek_reply_status(req, rc, site);
		return;
	}
	cmek_ops_overlay(ops, entry->node, &entry->st);
	if (cmek_reply_entry(req, entry, &ops->timeouts) != 0)
		cmek_tree_forget(ops->tree, entry->node, 1);
}

void cmek_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct cmek_reply_site site = cmek_site("lookup", parent);
	struct cmek_ops *ops = cmek_ops_of(req);
	struct cmek_entry entry;
	int rc = cmek_tree_lookup(ops->tree, parent, name, &entry);

	if (rc == -ENOENT)
		cmek_reply_no_entry(req, &ops->timeouts);
	else
		reply_entry_or_error(req, rc, &entry, &site);
}

static void forget(const struct cmek_ops *ops, uint64_t node, uint64_t n_lookups)
{
	cmek_content_forgotten(ops->content, node);
	cmek_tree_forget(ops->tree, node, n_lookups);
}

void cmek_op_forget(fuse_req_t req, fuse_ino_t node, uint64_t n_lookups)
{
	forget(cmek_ops_of(req), node, n_lookups);
	cmek_reply_none(req);
}

void cmek_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct cmek_ops *ops = cmek_ops_of(req);
	size_t i;

	for (i = 0; i < count; i++)
		forget(ops, forgets[i].ino, forgets[i].nlookup);
	cmek_reply_none(req);
}

void cmek_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct cmek_reply_site site = cmek_site("mknod", parent);
	struct cmek_ops *ops = cmek_ops_of(req);
	struct cmek_cred cred = cmek_ops_caller(req);
	struct cmek_entry entry;
	int rc = cmek_ops_check_new(ops, parent, name);

	if (rc == 0)
		rc = cmek_tree_mknod(ops->tree, parent, name, mode, rdev, &cred, &entry);

	reply_entry_or_error(req, rc, &entry, &site);
}

void cmek_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct cmek_reply_site site = cmek_site("mkdir", parent);
	struct cmek_ops *ops = cmek_ops_of(req);
	struct cmek_cred cred = cmek_ops_caller(req);
	struct cmek_entry entry;
	int rc = cmek_ops_check_new(ops, parent, name);

	if (rc == 0)
		rc = cmek_tree_mkdir(ops->tree, parent, name, mode, &cred, &entry);

	reply_entry_or_error(req, rc, &entry, &site);
}

void cmek_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct cmek_reply_site site = cmek_site("symlink", parent);
	struct cmek_ops *ops = cmek_ops_of(req);
	struct cmek_cred cred = cmek_ops_caller(req);
	struct cmek_entry entry;
	int rc = cmek_ops_check_new(ops, parent, name);

	if (rc == 0)
		rc = cmek_tree_symlink(ops->tree, parent, name, target, &cred, &entry);

	reply_entry_or_error(req, rc, &entry, &site);
}

void cmek_op_link(fuse_req_t req, fuse_ino_t node, fuse_ino_t new_parent, const char *new_name)
{
	struct cmek_reply_site site = cmek_site("link", node);
	struct cmek_ops *ops = cmek_ops_of(req);
	struct cmek_entry entry;
	int rc = cmek_ops_commit(ops, node);

	if (rc == 0)
		rc = cmek_tree_link(ops->tree, node, new_parent, new_name, &entry);
	if (rc == 0)
		cmek_ops_metadata_changed(ops, node);
	reply_entry_or_error(req, rc, &entry, &site);
}

void cmek_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct cmek_reply_site site = cmek_site("unlink", parent);
	struct cmek_ops *ops = cmek_ops_of(req);
	int rc = cmek_tree_unlink(ops->tree, parent, name);

	if (rc == -ENOSPC && cmek_room_use_reserve(ops->room))
		rc = cmek_tree_unlink(ops->tree, parent, name);
	cmek_content_names_changed(ops->content);
	if (rc == 0)
		cmek_ops_removed(ops);
	cmek_reply_status(req, rc, &site);
}

void cmek_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct cmek_reply_site site = cmek_site("rmdir", parent);
	struct cmek_ops *ops = cmek_ops_of(req);
	int rc = cmek_tree_rmdir(ops->tree, parent, name);

	if (rc == -ENOSPC && cmek_room_use_reserve(ops->room))
		rc = cmek_tree_rmdir(ops->tree, parent, name);
	cmek_reply_status(req, rc, &site);
}

/* Commits the file of this name, if there is such a file and it has changes. *ret_node: what has the name. */
static int commit_name(const struct cmek_ops *ops, uint64_t parent, const char *name, uint64_t *ret_node)
{
	struct cmek_entry entry;
	int rc = cmek_tree_lookup(ops->tree, parent, name, &entry);

	if (rc != 0)
		return rc;
	if (S_ISREG(entry.st.st_mode))
		rc = cmek_ops_commit(ops, entry.node);
	*ret_node = entry.node;
	cmek_tree_forget(ops->tree, entry.node, 1);
	return rc;
}

void cmek_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
		    unsigned flags)
{
	struct cmek_reply_site site = cmek_site("rename", parent);
	struct cmek_ops *ops = cmek_ops_of(req);
	uint64_t node = 0, other = 0;
	int rc = commit_name(ops, parent, name, &node);

	if (rc == 0 && (flags & RENAME_EXCHANGE))
		rc = commit_name(ops, new_parent, new_name, &other);
	if (rc == 0) {
		rc = cmek_tree_rename(ops->tree, parent, name, new_parent, new_name, flags);
		cmek_content_names_changed(ops->content);
	}
	if (rc == 0) {
		cmek_ops_metadata_changed(ops, node);
		cmek_ops_removed(ops); /* what had the new name */
	}
	if (rc == 0 && other != 0)
		cmek_ops_metadata_changed(ops, other);
	cmek_reply_status(req, rc, &site);
}

/*
 * The kernel keeps listings, one for each directory, and whoever reads one goes by what another has put there meanwhile,
 * also what that one had read before a change that the reader began behind. So one open at a time uses it, all others
 * ask. That several directories share a place costs no more than questions.
 */
#define USES_LISTING (UINT64_C(1) << 63) /* in the handle, which is the node otherwise */

static atomic_bool *listed_place(struct cmek_ops *ops, uint64_t node)
{
	return &ops->listed[node % CMEK_LISTED];
}

static void opendir_undo(struct cmek_ops *ops, uint64_t node, const struct fuse_file_info *fi)
{
	if (fi->fh & USES_LISTING)
		atomic_store(listed_place(ops, node), false);
}

void cmek_op_opendir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct cmek_ops *ops = cmek_ops_of(req);

	fi->fh = node;
	if (!ops->refuse_listing_cache) {
		fi->keep_cache = 1;
		fi->cache_readdir = !atomic_exchange(listed_place(ops, node), true);
		fi->fh |= fi->cache_readdir ? USES_LISTING : 0;
	}
	if (cmek_reply_open(req, fi) != 0)
		opendir_undo(ops, node, fi);
}

void cmek_op_releasedir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct cmek_reply_site site = cmek_site("releasedir", node);

	opendir_undo(cmek_ops_of(req), node, fi);
	cmek_reply_status(req, 0, &site);
}

/* A listing being filled. */
struct listing {
	fuse_req_t req;
	char *buf;
	size_t size, used;
	bool plus;
};

static int emit(void *arg, const char *name, const struct cmek_entry *entry, uint64_t next_off)
{
	struct listing *l = arg;
	struct cmek_ops *ops = cmek_ops_of(l->req);
	size_t room = l->size - l->used, need;

	if (l->plus) {
		struct fuse_entry_param param;
		struct cmek_entry known = *entry;

		if (known.node != 0)
			cmek_ops_overlay(ops, known.node, &known.st);
		cmek_reply_fill_entry(&param, &known, &ops->timeouts);
		need = fuse_add_direntry_plus(l->req, l->buf + l->used, room, name, &param, (off_t)next_off);
	} else {
		need = fuse_add_direntry(l->req, l->buf + l->used, room, name, &entry->st, (off_t)next_off);
	}
	if (need > room)
		return 1;
	l->used += need;
	return 0;
}

static void list(fuse_req_t req, fuse_ino_t node, size_t size, off_t off, bool plus)
{
	struct cmek_reply_site site = cmek_site("readdir", node);
	struct cmek_ops *ops = cmek_ops_of(req);
	struct listing l = { .req = req, .buf = cmek_ops_read_buffer(ops), .plus = plus };
	unsigned n_bad = 0;
	int rc = -ENOMEM;

	l.size = size < CMEK_IO_MAX ? size : CMEK_IO_MAX;
	if (l.buf)
		rc = cmek_tree_readdir(ops->tree, node, (uint64_t)off, plus, emit, &l, &n_bad);
	if (n_bad > 0)
		cmek_reply_log_bad_entries(req, node, n_bad);
	/* What was listed before an error is delivered; the next call meets the error again. */
	if (rc != 0 && l.used == 0)
		cmek_reply_status(req, rc, &site);
	else
		cmek_reply_data(req, l.buf, l.used);
}

void cmek_op_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, node, size, off, false);
}

void cmek_op_readdirplus(fuse_req_t req, fuse_ino_t node, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	list(req, node, size, off, true);
}

void cmek_op_fsyncdir(fuse_req_t req, fuse_ino_t node, int datasync, struct fuse_file_info *fi)
{
	struct cmek_reply_site site = cmek_site("fsyncdir", node);

	(void)fi;
	cmek_reply_status(req, cmek_tree_fsyncdir(cmek_ops_of(req)->tree, node, datasync), &site);
}
