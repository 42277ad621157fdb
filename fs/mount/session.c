/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * libfuse's session over a connection that was made elsewhere: what is agreed with the kernel at INIT, the serving
 * threads, and their end. It must not know how a request is answered, nor what is mounted where.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "fs/mount/fuse.h"
#include "fs/mount/ops.h"
#include "fs/mount/session.h"
#include "fs/mount/workers.h"

#define DEFAULT_THREADS 10
#define READAHEAD_MAX (1u << 20)
/* Background requests (readahead, writeback, O_DIRECT in parallel): enough for the queue of an SSD. */
#define BACKGROUND_MAX 64

/* Of FUSE: with Linux 5.17. */
#define ASKS_BEFORE_WRITES_MINOR 36

#define STOP_TICK_MS 10
#define STOP_QUIET_TICKS 10
#define STOP_MAX_TICKS 1000

struct cmek_session {
	struct cmek_ops ops; /* first: it is libfuse's user data, see from_ops() */
	struct cmek_session_params params;
	struct fuse_session *fuse;
	struct cmek_gate *gate;
	int device_fd; /* owned by fuse */
	struct cmek_workers *workers;
	atomic_bool running;
	bool told_up;
};

static struct cmek_session *from_ops(void *userdata)
{
	return userdata;
}

static void want(struct fuse_conn_info *conn, unsigned cap)
{
	conn->want |= cap & conn->capable;
}

/*
 * INIT. Not asked for: splicing (the data has to be in memory to be encrypted), locks (the kernel keeps them, the
 * volume has no other user), and AUTO_INVAL_DATA (nobody changes files behind the kernel's back). ATOMIC_O_TRUNC is for
 * who takes suid and sgid away himself (measured: else open(O_TRUNC) by somebody else leaves them), see wire.h.
 */
static void init(void *userdata, struct fuse_conn_info *conn)
{
	struct cmek_session *session = from_ops(userdata);

	conn->want = 0;
	want(conn, FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ASYNC_DIO |
			   FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_NO_OPENDIR_SUPPORT |
			   FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK);
	if (cmek_wire_kills_privs(&session->ops.wire))
		want(conn, FUSE_CAP_ATOMIC_O_TRUNC);
	if (session->params.writeback)
		want(conn, FUSE_CAP_WRITEBACK_CACHE);
	session->ops.kernel_sets_mtime = conn->want & FUSE_CAP_WRITEBACK_CACHE;
	/* One that never keeps attributes asks for those before reads, too. */
	session->ops.asks_before_writes = session->ops.kernel_sets_mtime && !session->params.allow_root &&
					  (conn->proto_major > 7 || conn->proto_minor >= ASKS_BEFORE_WRITES_MINOR);
	if (!session->params.allow_root)
		want(conn, FUSE_CAP_CACHE_SYMLINKS);
	conn->max_write = CMEK_IO_MAX;
	conn->max_readahead = READAHEAD_MAX;
	conn->max_background = BACKGROUND_MAX;
	conn->congestion_threshold = BACKGROUND_MAX * 3 / 4;
	conn->time_gran = 1;
	if (!session->told_up && session->params.up)
		session->params.up(session->params.arg);
	session->told_up = true;
}

/*
 * flush is left out: close(2) waits until the kernel has written the file's pages back, and that brings the errors of
 * those writes. Being asked as well would cost every close a round trip.
 */
static const struct fuse_lowlevel_ops lowlevel_ops = {
	.init = init,
	.lookup = cmek_op_lookup,
	.forget = cmek_op_forget,
	.forget_multi = cmek_op_forget_multi,
	.getattr = cmek_op_getattr,
	.setattr = cmek_op_setattr,
	.readlink = cmek_op_readlink,
	.mknod = cmek_op_mknod,
	.mkdir = cmek_op_mkdir,
	.symlink = cmek_op_symlink,
	.link = cmek_op_link,
	.unlink = cmek_op_unlink,
	.rmdir = cmek_op_rmdir,
	.rename = cmek_op_rename,
	.create = cmek_op_create,
	.open = cmek_op_open,
	.read = cmek_op_read,
	.write = cmek_op_write,
	.fsync = cmek_op_fsync,
	.release = cmek_op_release,
	.opendir = cmek_op_opendir,
	.readdir = cmek_op_readdir,
	.readdirplus = cmek_op_readdirplus,
	.releasedir = cmek_op_releasedir,
	.fsyncdir = cmek_op_fsyncdir,
	.fallocate = cmek_op_fallocate,
	.lseek = cmek_op_lseek,
	.statfs = cmek_op_statfs,
	.getxattr = cmek_op_getxattr,
	.listxattr = cmek_op_listxattr,
	.setxattr = cmek_op_setxattr,
	.removexattr = cmek_op_removexattr,
};

static ssize_t read_device(int fd, void *buf, size_t size, void *userdata)
{
	ssize_t n = cmek_gate_read(from_ops(userdata)->gate, fd, buf, size);

	return n <= 0 ? n : (ssize_t)cmek_wire_received(&from_ops(userdata)->ops.wire, buf, (size_t)n);
}

static ssize_t write_device(int fd, struct iovec *iov, int count, void *userdata)
{
	cmek_wire_answering(&from_ops(userdata)->ops.wire, iov, count);
	return cmek_gate_writev(from_ops(userdata)->gate, fd, iov, count);
}

static const struct fuse_custom_io custom_io = { .read = read_device, .writev = write_device };

static void log_of_libfuse(enum fuse_log_level level, const char *fmt, va_list ap)
{
	static struct cmek_log_limit limit;
	char text[256];

	(void)vsnprintf(text, sizeof(text), fmt, ap); /* a cut message is still a message */
	text[strcspn(text, "\n")] = '\0';
	cmek_log_limited(&limit, level <= FUSE_LOG_ERR ? CMEK_LOG_ERROR : CMEK_LOG_DEBUG, "%s", text);
}

static void served(void *arg)
{
	struct cmek_session *session = arg;

	cmek_gate_finish(session->gate);
}

static void forget_thread(void *arg)
{
	struct cmek_session *session = arg;

	cmek_ops_forget_thread(&session->ops);
}

int cmek_session_new(int device_fd, struct cmek_tree *tree, struct cmek_content *content,
		     const struct cmek_session_params *params, struct cmek_session **ret_session, struct cmek_error *err)
{
	struct cmek_session *session = calloc(1, sizeof(*session));
	char program[] = "cmekfs", deny[] = "-oallow_root";
	char *argv[] = { program, deny, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(params->allow_root ? 2 : 1, argv);
	struct cmek_workers_host host = { session, served, forget_thread };
	int rc = -ENOMEM;

	if (!session)
		goto out;
	session->params = *params;
	rc = cmek_ops_init(&session->ops, tree, content, !params->allow_root);
	if (rc != 0) {
		free(session);
		session = NULL;
		goto out;
	}
	fuse_set_log_func(log_of_libfuse);
	session->fuse = fuse_session_new(&args, &lowlevel_ops, sizeof(lowlevel_ops), &session->ops);
	fuse_opt_free_args(&args);
	if (!session->fuse)
		rc = -EIO;
	if (rc == 0)
		rc = cmek_gate_new(&session->gate);
	/* The descriptor is libfuse's own from here on. */
	if (rc == 0)
		rc = fuse_session_custom_io(session->fuse, &custom_io, device_fd);
	if (rc != 0)
		goto out;
	session->ops.session = session->fuse;
	session->ops.room = params->room;
	session->ops.unauthentic = params->unauthentic;
	session->ops.unauthentic_arg = params->arg;
	session->device_fd = device_fd;
	device_fd = -1;
	rc = params->read_only ? 0 : cmek_ops_laters_start(&session->ops);
	if (rc != 0)
		goto out;
	session->workers = cmek_workers_new(session->fuse, params->max_threads ? params->max_threads : DEFAULT_THREADS,
					    &host);
	if (!session->workers) {
		rc = -ENOMEM;
		goto out;
	}
	*ret_session = session;
	session = NULL;
out:
	cmek_session_free(session);
	if (device_fd >= 0)
		(void)close(device_fd); /* nothing was written to it */
	return rc == 0 ? 0 : cmek_error_sys(err, -rc, "setting up the FUSE session");
}

int cmek_session_run(struct cmek_session *session)
{
	int rc;

	atomic_store(&session->running, true);
	rc = cmek_workers_run(session->workers);
	atomic_store(&session->running, false);
	return rc;
}

static void sleep_tick(void)
{
	const struct timespec tick = { 0, STOP_TICK_MS * 1000000L };

	(void)nanosleep(&tick, NULL); /* sooner is fine */
}

void cmek_session_stop(struct cmek_session *session)
{
	struct pollfd device = { .fd = session->device_fd, .events = POLLIN };
	int quiet = 0, i;

	/* What the kernel was told to write back may still be on its way in. */
	for (i = 0; i < STOP_MAX_TICKS && quiet < STOP_QUIET_TICKS && atomic_load(&session->running); i++) {
		quiet = poll(&device, 1, 0) == 0 ? quiet + 1 : 0;
		sleep_tick();
	}
	cmek_ops_laters_close(&session->ops);
	cmek_workers_stop(session->workers);
}

struct cmek_gate *cmek_session_gate(struct cmek_session *session)
{
	return session->gate;
}

void cmek_session_settle(struct cmek_session *session)
{
	cmek_ops_laters_wait(&session->ops);
}

int cmek_session_invalidate(struct cmek_session *session, uint64_t node)
{
	return fuse_lowlevel_notify_inval_inode(session->fuse, node, 0, 0);
}

bool cmek_session_forget(struct cmek_session *session, unsigned timeout_ms)
{
	return cmek_workers_forget(session->workers, timeout_ms);
}

bool cmek_session_alive(struct cmek_session *session)
{
	return cmek_workers_alive(session->workers);
}

void cmek_session_free(struct cmek_session *session)
{
	if (!session)
		return;
	cmek_ops_laters_end(&session->ops);
	cmek_workers_free(session->workers);
	if (session->fuse)
		fuse_session_destroy(session->fuse);
	cmek_gate_free(session->gate);
	cmek_ops_done(&session->ops);
	free(session);
}
