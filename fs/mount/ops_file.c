/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Requests about the data of regular files, and their opening and closing. It must not know blocks or keys; a file's
 * shared state is found by its node each time.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/fds.h"
#include "base/log.h"
#include "fs/mount/ops.h"

static void free_read_buffer(void *buf)
{
	(void)munmap(buf, CMEK_IO_MAX); /* the kernel clears pages before it gives them to others */
}

int cmek_ops_init(struct cmek_ops *ops, struct cmek_tree *tree, struct cmek_content *content, bool cached)
{
	/* A year: nobody but this mount changes the volume. */
	const double forever_s = 365 * 86400.0;

	ops->tree = tree;
	ops->content = content;
	ops->timeouts.entry_s = ops->timeouts.attr_s = ops->timeouts.negative_s = cached ? forever_s : 0;
	ops->refuse_listing_cache = !cached;
	return -pthread_key_create(&ops->read_buffer, free_read_buffer);
}

void cmek_ops_done(struct cmek_ops *ops)
{
	void *own = pthread_getspecific(ops->read_buffer);

	if (own)
		free_read_buffer(own);
	(void)pthread_key_delete(ops->read_buffer);
}

void *cmek_ops_read_buffer(const struct cmek_ops *ops)
{
	void *buf = pthread_getspecific(ops->read_buffer);

	if (buf)
		return buf;
	buf = mmap(NULL, CMEK_IO_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (buf == MAP_FAILED)
		return NULL;
	(void)madvise(buf, CMEK_IO_MAX, MADV_DONTDUMP); /* the process makes no dumps anyway */
	if (pthread_setspecific(ops->read_buffer, buf) != 0) {
		free_read_buffer(buf);
		return NULL;
	}
	return buf;
}

void cmek_ops_forget_thread(const struct cmek_ops *ops)
{
	void *buf = pthread_getspecific(ops->read_buffer);

	if (buf)
		cmek_wipe(buf, CMEK_IO_MAX);
}

/*
 * The kernel keeps what it has cached of a file from the last open: nobody else changes it. Direct I/O is the kernel's
 * own business: an O_DIRECT file skips its page cache, and all others go on using it.
 */
static void fill_open_answer(struct fuse_file_info *fi, uint64_t node)
{
	fi->fh = node;
	fi->keep_cache = 1;
}

/*
 * Descriptors ran out for files that users keep open. True: closed files had some, and have let go of them, so that it is
 * worth another try. Else the log says what to do about it, once a minute.
 */
static bool made_room(const struct cmek_ops *ops, int rc)
{
	static _Atomic(uint64_t) next_ms;
	uint64_t now = cmek_now_ms(), next = atomic_load(&next_ms);
	struct cmek_fds fds;

	if (rc != -EMFILE)
		return false;
	if (cmek_content_commit_closed(ops->content))
		return true;
	cmek_fds_plan(&fds);
	if (now >= next && atomic_compare_exchange_strong(&next_ms, &next, now + 60000))
		cmek_log(CMEK_LOG_WARNING, "open: refused (ENFILE): files that are open have all %d descriptors that they may have, "
			 "of the limit of %u; raise that (LimitNOFILE= of the unit, ulimit -Hn) and mount again",
			 fds.user_end, fds.limit);
	return false;
}

void cmek_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct cmek_reply_site site = cmek_site("create", parent);
	bool no_suidgid = cmek_wire_flags().kill_suidgid;
	struct cmek_cred cred = cmek_ops_caller(req);
	struct cmek_ops *ops = cmek_ops_of(req);
	struct cmek_later later = { .what = "create", .drop_from = -1, .is_new = true };
	struct cmek_ofile *file;
	struct cmek_entry entry;
	bool asks;
	int fd = -1;
	int rc = cmek_ops_check_new(ops, parent, name);

	if (rc == 0)
		rc = cmek_tree_create(ops->tree, parent, name, mode, fi->flags & O_EXCL, &cred, &entry, &fd);
	if (made_room(ops, rc))
		rc = cmek_tree_create(ops->tree, parent, name, mode, fi->flags & O_EXCL, &cred, &entry, &fd);
	if (rc == 0) {
		bool existed = fd < 0;

		rc = cmek_ofile_open(ops->content, entry.node, fd, fi->flags & O_TRUNC, &file);
		/* One that is there already, and that the caller did not know of. */
		if (rc == 0 && existed && (fi->flags & O_TRUNC)) {
			rc = cmek_ops_kill_privs(req, entry.node, file, no_suidgid);
			if (rc != 0)
				cmek_ofile_close(file);
		}
		if (rc != 0)
			cmek_tree_forget(ops->tree, entry.node, 1);
	}
	if (rc != 0) {
		cmek_reply_status(req, rc, &site);
		return;
	}
	cmek_ops_overlay(ops, entry.node, &entry.st);
	fill_open_answer(fi, entry.node);
	later.node = entry.node;
	asks = cmek_ops_grows(ops, file);
	if (cmek_reply_create(req, &entry, &ops->timeouts, fi) != 0) {
		cmek_ofile_close(file);
		cmek_tree_forget(ops->tree, entry.node, 1);
	} else if (asks) {
		cmek_ops_later(ops, &later);
	}
}

/*
 * A look-up told the kernel a size by the length of the store file. If that is not the sealed size, after a crash or a
 * change of the store, the kernel must not go by it: it would show zeros behind the end, or leave out what is missing
 * without a word. And it does not take back a size: where the store has been put right, ESTALE makes it look the file up
 * again, as another node; else reads go past its cache, so that each gets its own answer.
 */
static int check_size(fuse_req_t req, struct cmek_ofile *file, uint64_t node, struct fuse_file_info *fi)
{
	switch (cmek_ofile_check_size(file)) {
	case CMEK_SIZE_TRUE:
		return 0;
	case CMEK_SIZE_MENDED:
		cmek_reply_log_size(req, node, true);
		cmek_tree_retire(cmek_ops_of(req)->tree, node);
		return -ESTALE;
	case CMEK_SIZE_WRONG:
		cmek_reply_log_size(req, node, false);
		fi->direct_io = 1;
		return 0;
	}
	return 0;
}

void cmek_op_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct cmek_reply_site site = cmek_site("open", node);
	struct cmek_ops *ops = cmek_ops_of(req);
	struct cmek_ofile *file;
	bool no_suidgid = cmek_wire_flags().kill_suidgid;
	int rc = cmek_ofile_open(ops->content, node, -1, fi->flags & O_TRUNC, &file);

	if (made_room(ops, rc))
		rc = cmek_ofile_open(ops->content, node, -1, fi->flags & O_TRUNC, &file);
	if (rc == 0) {
		rc = check_size(req, file, node, fi);
		if (rc == 0 && (fi->flags & O_TRUNC))
			rc = cmek_ops_kill_privs(req, node, file, no_suidgid);
		if (rc != 0)
			cmek_ofile_close(file);
	}
	if (rc != 0) {
		cmek_reply_status(req, rc, &site);
		return;
	}
	/* It needs room from the first byte on. Whoever opens it has the inode, so that the kernel has not to wait for it. */
	if ((fi->flags & O_ACCMODE) != O_RDONLY && ((fi->flags & O_APPEND) || cmek_ofile_size(file) == 0) &&
	    cmek_ops_grows(ops, file))
		(void)fuse_lowlevel_notify_inval_inode(ops->session, node, -1, 0);
	fill_open_answer(fi, node);
	if (cmek_reply_open(req, fi) != 0)
		cmek_ofile_close(file);
}

/* The state of a file the kernel has open. It has one from its open on, so NULL means a request gone astray. */
static struct cmek_ofile *open_file(fuse_req_t req, uint64_t node, const struct cmek_reply_site *site)
{
	struct cmek_ofile *file = cmek_ofile_find(cmek_ops_of(req)->content, node);

	if (!file)
		cmek_reply_status(req, -EIO, site);
	return file;
}

void cmek_op_read(fuse_req_t req, fuse_ino_t node, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct cmek_reply_site site = { "read", node, (uint64_t)off };
	struct cmek_ofile *file = open_file(req, node, &site);
	void *buf;
	ssize_t n = -ENOMEM;

	(void)fi;
	if (!file)
		return;
	buf = cmek_ops_read_buffer(cmek_ops_of(req));
	if (buf)
		n = cmek_content_read(file, buf, size < CMEK_IO_MAX ? size : CMEK_IO_MAX, (uint64_t)off);
	if (n >= 0)
		cmek_reply_data(req, buf, (size_t)n);
	else
		cmek_reply_status(req, (int)n, &site);
	cmek_ofile_close(file);
}

static int write_through(fuse_req_t req, uint64_t node, struct cmek_ofile *file, const char *data, size_t size, uint64_t off)
{
	int rc = cmek_ops_kill_privs(req, node, file, cmek_wire_flags().kill_suidgid);

	return rc == 0 ? cmek_content_write(file, data, size, off) : rc;
}

void cmek_op_write(fuse_req_t req, fuse_ino_t node, const char *data, size_t size, off_t off,
		   struct fuse_file_info *fi)
{
	struct cmek_reply_site site = { "write", node, (uint64_t)off };
	struct cmek_ofile *file = open_file(req, node, &site);
	struct cmek_ops *ops = cmek_ops_of(req);
	bool grows;
	int rc = 0;

	if (!file)
		return;
	grows = (uint64_t)off + size > cmek_ofile_size(file);
	/*
	 * A page from the kernel's cache was written by the user earlier: where the kernel keeps dirty pages it sets that
	 * time itself, before or after. Elsewhere such a page was written through a mapping, and nobody else sets it. There is
	 * room for such pages, which were taken already.
	 */
	if (!fi->writepage)
		rc = cmek_ops_check_size(ops, file, (uint64_t)off + size);
	if (rc == 0 && fi->writepage && ops->kernel_sets_mtime)
		rc = cmek_content_write_back(file, data, size, (uint64_t)off);
	else if (rc == 0)
		rc = write_through(req, node, file, data, size, (uint64_t)off);
	/* Before the answer: who waits for it, to be told whether there was growth, may not miss this. */
	if (grows && fi->writepage && cmek_ops_grew(ops, file))
		cmek_ops_ask_again(ops, node, file);
	if (rc == 0)
		cmek_reply_written(req, size);
	else
		cmek_reply_status(req, rc, &site);
	cmek_ofile_close(file);
}

void cmek_op_fsync(fuse_req_t req, fuse_ino_t node, int datasync, struct fuse_file_info *fi)
{
	struct cmek_reply_site site = cmek_site("fsync", node);
	struct cmek_ofile *file = open_file(req, node, &site);
	int rc;

	(void)fi;
	if (!file)
		return;
	rc = cmek_content_sync(file, datasync);
	if (rc == 0)
		rc = cmek_tree_fsync_entry(cmek_ops_of(req)->tree, node);
	cmek_reply_status(req, rc, &site);
	cmek_ofile_close(file);
}

void cmek_op_release(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct cmek_reply_site site = cmek_site("release", node);
	struct cmek_ofile *file = open_file(req, node, &site);

	(void)fi;
	if (!file)
		return;
	if (cmek_ofile_check_size(file) == CMEK_SIZE_WRONG)
		cmek_tree_retire(cmek_ops_of(req)->tree, node); /* what was written may have put it right */
	/* Nobody waits for this answer, so what the close does (a commit) may take its time behind it. */
	cmek_reply_status(req, 0, &site);
	cmek_ofile_close(file); /* ours of a moment ago */
	cmek_ofile_close(file); /* the open's */
}
