// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * Serves two files over FUSE: "image", a disk for a loop device in direct I/O mode, and "mark", into which workloads
 * write lines. Every write, flush and discard of the image and every line is appended to a log in the order in which a
 * disk may have finished them. It must not know what is on the image, nor what the lines mean.
 */
#include "config.h"

#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/powercut/record.h"

#define INO_IMAGE 2
#define INO_MARK 3
#define ATTR_SECONDS 3600.0
#define BATCH 64
#define MAX_WRITE_BYTES (1024 * 1024)

struct recorder {
	uint8_t *image; /* the backing file, mapped */
	uint64_t image_bytes;
	int image_fd;
	int log_fd;
	int failed; /* errno of the first log write that failed: the log ends there, so the recording is worthless */
};

static struct recorder *recorder_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* One record, whole. After a failure all later ones fail too: a log with a hole would accuse the innocent. */
static int log_append(struct recorder *r, uint32_t type, uint64_t offset, uint64_t length, const void *data)
{
	struct pc_record_head head = { .magic = PC_RECORD_MAGIC, .type = type, .offset = offset, .length = length };
	struct iovec iov[2] = { { &head, sizeof(head) }, { (void *)data, data ? length : 0 } };
	struct iovec *next = iov;
	int left = 2;

	if (r->failed)
		return -r->failed;
	while (left > 0) {
		ssize_t n = writev(r->log_fd, next, left);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			r->failed = n < 0 ? errno : EIO;
			fprintf(stderr, "recorder: writing the log: %s\n", strerror(r->failed));
			return -r->failed;
		}
		while (left > 0 && (size_t)n >= next->iov_len) {
			n -= (ssize_t)next->iov_len;
			next++;
			left--;
		}
		if (left > 0) {
			next->iov_base = (uint8_t *)next->iov_base + n;
			next->iov_len -= (size_t)n;
		}
	}
	return 0;
}

static int in_image(const struct recorder *r, uint64_t offset, uint64_t length)
{
	return offset <= r->image_bytes && length <= r->image_bytes - offset;
}

/* Requests */

static void fill_attr(const struct recorder *r, fuse_ino_t ino, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = ino;
	st->st_nlink = 1;
	st->st_blksize = 4096;
	if (ino == FUSE_ROOT_ID) {
		st->st_mode = S_IFDIR | 0700;
	} else {
		st->st_mode = S_IFREG | 0600;
		st->st_size = ino == INO_IMAGE ? (off_t)r->image_bytes : 0;
	}
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = { .attr_timeout = ATTR_SECONDS, .entry_timeout = ATTR_SECONDS };

	if (parent == FUSE_ROOT_ID && strcmp(name, "image") == 0)
		entry.ino = INO_IMAGE;
	else if (parent == FUSE_ROOT_ID && strcmp(name, "mark") == 0)
		entry.ino = INO_MARK;
	if (!entry.ino) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	fill_attr(recorder_of(req), entry.ino, &entry.attr);
	fuse_reply_entry(req, &entry);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	fill_attr(recorder_of(req), ino, &st);
	fuse_reply_attr(req, &st, ATTR_SECONDS);
}

/* Times and modes of the two files mean nothing; sizes are fixed. */
static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	(void)attr;
	if (ino == INO_IMAGE && (to_set & FUSE_SET_ATTR_SIZE)) {
		fuse_reply_err(req, EPERM);
		return;
	}
	op_getattr(req, ino, fi);
}

/* No page cache of the kernel between the loop device and us, whatever mode the loop device is in. */
static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if (ino != INO_IMAGE && ino != INO_MARK) {
		fuse_reply_err(req, EISDIR);
		return;
	}
	fi->direct_io = 1;
	fuse_reply_open(req, fi);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct recorder *r = recorder_of(req);
	uint64_t left;

	(void)fi;
	if (ino != INO_IMAGE || (uint64_t)off >= r->image_bytes) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	left = r->image_bytes - (uint64_t)off;
	fuse_reply_buf(req, (const char *)r->image + off, size < left ? size : (size_t)left);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct recorder *r = recorder_of(req);
	int ret;

	(void)fi;
	if (ino == INO_MARK) {
		ret = log_append(r, PC_MARK, 0, size, buf);
	} else if (!in_image(r, (uint64_t)off, size)) {
		ret = -ENOSPC;
	} else {
		ret = log_append(r, PC_WRITE, (uint64_t)off, size, buf);
		if (!ret)
			memcpy(r->image + off, buf, size);
	}
	if (ret)
		fuse_reply_err(req, -ret);
	else
		fuse_reply_write(req, size);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)datasync;
	(void)fi;
	fuse_reply_err(req, ino == INO_IMAGE ? -log_append(recorder_of(req), PC_FLUSH, 0, 0, NULL) : 0);
}

/* Discards and write-zeroes of the loop device. */
static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t length, struct fuse_file_info *fi)
{
	struct recorder *r = recorder_of(req);
	int ret;

	(void)fi;
	if (ino != INO_IMAGE || !(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	if (!in_image(r, (uint64_t)off, (uint64_t)length)) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	ret = log_append(r, PC_DISCARD, (uint64_t)off, (uint64_t)length, NULL);
	if (!ret && fallocate(r->image_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, length) < 0)
		ret = -errno;
	fuse_reply_err(req, -ret);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->max_write = MAX_WRITE_BYTES;
	conn->max_background = BATCH;
}

static const struct fuse_lowlevel_ops ops = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.open = op_open,
	.read = op_read,
	.write = op_write,
	.fsync = op_fsync,
	.fallocate = op_fallocate,
};

/* The loop */

static uint32_t opcode_of(const struct fuse_buf *buf)
{
	struct fuse_in_header head;

	memcpy(&head, buf->mem, sizeof(head));
	return head.opcode;
}

/*
 * Takes all requests that wait, and does their flushes first: they were asked for before any of the other requests
 * here was answered, so what they promise doesn't hold for those.
 */
static int serve_batch(struct fuse_session *se, struct fuse_buf *bufs)
{
	int n = 0, ret = 0, i;

	while (n < BATCH) {
		ret = fuse_session_receive_buf(se, &bufs[n]);
		if (ret == -EINTR)
			continue;
		if (ret <= 0)
			break;
		n++;
	}
	for (i = 0; i < n; i++)
		if (opcode_of(&bufs[i]) == FUSE_FSYNC)
			fuse_session_process_buf(se, &bufs[i]);
	for (i = 0; i < n; i++)
		if (opcode_of(&bufs[i]) != FUSE_FSYNC)
			fuse_session_process_buf(se, &bufs[i]);
	return ret == -EAGAIN || ret > 0 ? 0 : ret;
}

static int serve(struct fuse_session *se)
{
	struct pollfd pfd = { .fd = fuse_session_fd(se), .events = POLLIN };
	struct fuse_buf bufs[BATCH];
	int ret = 0, i;

	memset(bufs, 0, sizeof(bufs));
	if (fcntl(pfd.fd, F_SETFL, fcntl(pfd.fd, F_GETFL) | O_NONBLOCK) < 0)
		return -errno;
	while (!fuse_session_exited(se) && !ret) {
		if (poll(&pfd, 1, -1) < 0 && errno != EINTR)
			ret = -errno;
		else
			ret = serve_batch(se, bufs);
	}
	for (i = 0; i < BATCH; i++)
		free(bufs[i].mem);
	return fuse_session_exited(se) ? 0 : ret;
}

static int open_files(struct recorder *r, const char *image, const char *log)
{
	struct stat st;

	r->image_fd = open(image, O_RDWR | O_CLOEXEC);
	if (r->image_fd < 0 || fstat(r->image_fd, &st) < 0) {
		fprintf(stderr, "recorder: %s: %s\n", image, strerror(errno));
		return -errno;
	}
	r->image_bytes = (uint64_t)st.st_size;
	r->image = mmap(NULL, r->image_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->image_fd, 0);
	if (r->image == MAP_FAILED) {
		fprintf(stderr, "recorder: mapping %s: %s\n", image, strerror(errno));
		return -errno;
	}
	r->log_fd = open(log, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
	if (r->log_fd < 0) {
		fprintf(stderr, "recorder: %s: %s\n", log, strerror(errno));
		return -errno;
	}
	return 0;
}

/* Runs in the foreground until it is unmounted. Status 0: the log is complete. */
int main(int argc, char **argv)
{
	struct recorder r = { .image_fd = -1, .log_fd = -1 };
	char *fuse_argv[] = { argv[0], (char *)"-ofsname=powercut-recorder,subtype=powercut", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(2, fuse_argv);
	struct fuse_session *se = NULL;
	int ret = 1;

	if (argc != 4) {
		fprintf(stderr, "usage: recorder IMAGE LOG MOUNTPOINT\n");
		return 2;
	}
	if (open_files(&r, argv[1], argv[2]))
		goto out;
	/* The kernel writes pages back through us, so our own allocations must not wait for that; root only. */
	(void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	se = fuse_session_new(&args, &ops, sizeof(ops), &r);
	if (!se || fuse_set_signal_handlers(se) || fuse_session_mount(se, argv[3]))
		goto out;
	ret = serve(se);
	if (ret)
		fprintf(stderr, "recorder: serving: %s\n", strerror(-ret));
	ret = ret || r.failed;
	fuse_session_unmount(se);
out:
	if (se) {
		fuse_remove_signal_handlers(se);
		fuse_session_destroy(se);
	}
	fuse_opt_free_args(&args);
	if (r.log_fd >= 0)
		close(r.log_fd);
	if (r.image_fd >= 0)
		close(r.image_fd);
	return ret ? 1 : 0;
}
