/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The gate in front of the handlers: lets requests in, counts them, refuses them. It reads no more of a request than its
 * head and, of SETATTR, what shall be set; it must not know files, keys, or why it is closed.
 */
#include "config.h"

#include "fs/mount/gate.h"

#include <errno.h>
#include <linux/fuse.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/secret.h"

#define TICK_MS 1
#define SETATTR_TIMES (FATTR_ATIME | FATTR_MTIME | FATTR_CTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW)
/* Of no consequence for whether it is only times. */
#define SETATTR_HOW (FATTR_FH | FATTR_LOCKOWNER)

/* When an operation is let in. */
enum rule { ONLY_OPEN = 0, WHILE_DRAINING, ALWAYS };

/* What is not in the table is let in only while open, and counted as "other". */
static const struct op_row {
	const char *name;
	enum rule rule;
} op_rows[] = {
	[0] = { "other", ONLY_OPEN },
	[FUSE_LOOKUP] = { "lookup", ONLY_OPEN },
	[FUSE_FORGET] = { "forget", ALWAYS },
	[FUSE_GETATTR] = { "getattr", ONLY_OPEN },
	[FUSE_SETATTR] = { "setattr", WHILE_DRAINING }, /* times only */
	[FUSE_READLINK] = { "readlink", ONLY_OPEN },
	[FUSE_SYMLINK] = { "symlink", ONLY_OPEN },
	[FUSE_MKNOD] = { "mknod", ONLY_OPEN },
	[FUSE_MKDIR] = { "mkdir", ONLY_OPEN },
	[FUSE_UNLINK] = { "unlink", ONLY_OPEN },
	[FUSE_RMDIR] = { "rmdir", ONLY_OPEN },
	[FUSE_RENAME] = { "rename", ONLY_OPEN },
	[FUSE_LINK] = { "link", ONLY_OPEN },
	[FUSE_OPEN] = { "open", ONLY_OPEN },
	[FUSE_READ] = { "read", ONLY_OPEN },
	[FUSE_WRITE] = { "write", WHILE_DRAINING },
	[FUSE_STATFS] = { "statfs", ALWAYS },
	[FUSE_RELEASE] = { "release", ALWAYS },
	[FUSE_FSYNC] = { "fsync", WHILE_DRAINING },
	[FUSE_SETXATTR] = { "setxattr", ONLY_OPEN },
	[FUSE_GETXATTR] = { "getxattr", ONLY_OPEN },
	[FUSE_LISTXATTR] = { "listxattr", ONLY_OPEN },
	[FUSE_REMOVEXATTR] = { "removexattr", ONLY_OPEN },
	[FUSE_FLUSH] = { "flush", WHILE_DRAINING },
	[FUSE_INIT] = { "init", ALWAYS },
	[FUSE_OPENDIR] = { "opendir", ONLY_OPEN },
	[FUSE_READDIR] = { "readdir", ONLY_OPEN },
	[FUSE_RELEASEDIR] = { "releasedir", ALWAYS },
	[FUSE_FSYNCDIR] = { "fsyncdir", WHILE_DRAINING },
	[FUSE_CREATE] = { "create", ONLY_OPEN },
	[FUSE_INTERRUPT] = { "interrupt", ALWAYS },
	[FUSE_DESTROY] = { "destroy", ALWAYS },
	[FUSE_NOTIFY_REPLY] = { "notify_reply", ALWAYS },
	[FUSE_BATCH_FORGET] = { "batch_forget", ALWAYS },
	[FUSE_FALLOCATE] = { "fallocate", ONLY_OPEN },
	[FUSE_READDIRPLUS] = { "readdirplus", ONLY_OPEN },
	[FUSE_RENAME2] = { "rename2", ONLY_OPEN },
	[FUSE_LSEEK] = { "lseek", ONLY_OPEN },
	[FUSE_COPY_FILE_RANGE] = { "copy_file_range", ONLY_OPEN },
};
#define N_OPS (sizeof(op_rows) / sizeof(op_rows[0]))

const double cmek_gate_bucket_s[CMEK_GATE_BUCKETS] = { 0.0001, 0.001, 0.01, 0.1, 1, 10, INFINITY };

struct counts {
	atomic_uint_fast64_t n, failed, total_ns;
	atomic_uint_fast64_t buckets[CMEK_GATE_BUCKETS];
};

/* A serving thread, and what it is at. */
struct worker {
	struct cmek_gate *gate;
	bool active;
	bool let_in_open;
	bool failed;
	unsigned op;
	uint64_t start_ns;
};

struct cmek_gate {
	pthread_key_t own; /* a thread's worker */
	/*
	 * A thread counts itself in before it looks at the state, and who changes the state looks at the counts afterwards:
	 * so a request is either seen or refused.
	 */
	atomic_int state;
	atomic_uint n_open, n_all; /* at work: let in while open; all */
	atomic_uint_fast64_t refused;
	struct counts counts[N_OPS];
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts); /* can't fail */
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* ---- serving threads ---- */

static void count(struct worker *w)
{
	struct counts *c = w->gate->counts + w->op;
	uint64_t ns = now_ns() - w->start_ns;
	unsigned i = 0;

	while ((double)ns > cmek_gate_bucket_s[i] * 1e9)
		i++;
	atomic_fetch_add_explicit(&c->n, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&c->total_ns, ns, memory_order_relaxed);
	atomic_fetch_add_explicit(c->buckets + i, 1, memory_order_relaxed);
	if (w->failed)
		atomic_fetch_add_explicit(&c->failed, 1, memory_order_relaxed);
}

/* The request that the thread read last has been served. */
static void finish(struct worker *w)
{
	if (!w->active)
		return;
	count(w);
	w->active = false;
	if (w->let_in_open)
		(void)atomic_fetch_sub(&w->gate->n_open, 1);
	(void)atomic_fetch_sub(&w->gate->n_all, 1);
}

static void worker_ended(void *arg)
{
	struct worker *w = arg;

	finish(w);
	free(w);
}

static struct worker *own_worker(struct cmek_gate *gate)
{
	struct worker *w = pthread_getspecific(gate->own);

	if (w)
		return w;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->gate = gate;
	if (pthread_setspecific(gate->own, w) == 0)
		return w;
	free(w);
	return NULL;
}

/* ---- who gets in ---- */

static bool is_let_in(int state, unsigned op, const struct fuse_in_header *head, size_t len)
{
	const struct fuse_setattr_in *setattr = (const struct fuse_setattr_in *)(head + 1);

	if (state == CMEK_GATE_OPEN || op_rows[op].rule == ALWAYS)
		return true;
	if (state == CMEK_GATE_LOCKED || op_rows[op].rule != WHILE_DRAINING)
		return false;
	if (op != FUSE_SETATTR)
		return true;
	return len >= sizeof(*head) + sizeof(*setattr) && !(setattr->valid & ~(uint32_t)(SETATTR_TIMES | SETATTR_HOW));
}

static void refuse(struct cmek_gate *gate, int fd, const struct fuse_in_header *head)
{
	struct fuse_out_header out = { .len = sizeof(out), .error = -EKEYREVOKED, .unique = head->unique };

	(void)atomic_fetch_add(&gate->refused, 1);
	(void)!write(fd, &out, sizeof(out)); /* fails when the asker is gone */
}

/* True: the request in buf is the thread's to serve. */
static bool let_in(struct worker *w, int fd, const void *buf, size_t len)
{
	struct cmek_gate *gate = w->gate;
	const struct fuse_in_header *head = buf;
	int state;

	w->op = head->opcode < N_OPS && op_rows[head->opcode].name ? head->opcode : 0;
	/* Both counts go up first, whatever comes of it; see struct cmek_gate. */
	(void)atomic_fetch_add(&gate->n_all, 1);
	(void)atomic_fetch_add(&gate->n_open, 1);
	state = atomic_load(&gate->state);
	w->let_in_open = state == CMEK_GATE_OPEN;
	if (!w->let_in_open)
		(void)atomic_fetch_sub(&gate->n_open, 1);
	if (is_let_in(state, w->op, head, len)) {
		w->active = true;
		w->failed = false;
		w->start_ns = now_ns();
		return true;
	}
	(void)atomic_fetch_sub(&gate->n_all, 1);
	refuse(gate, fd, head);
	return false;
}

ssize_t cmek_gate_read(struct cmek_gate *gate, int fd, void *buf, size_t len)
{
	struct worker *w = own_worker(gate);
	ssize_t n;

	if (!w) {
		errno = ENOMEM;
		return -1;
	}
	for (;;) {
		n = read(fd, buf, len);
		if (n < (ssize_t)sizeof(struct fuse_in_header) || let_in(w, fd, buf, (size_t)n))
			return n;
		cmek_wipe(buf, (size_t)n); /* data that is refused stays with the kernel */
	}
}

void cmek_gate_finish(struct cmek_gate *gate)
{
	struct worker *w = pthread_getspecific(gate->own);

	if (w)
		finish(w);
}

/* Attributes that are told while draining must not be kept: a write would go by them, see gate.h. */
static void tell_for_now(struct iovec *iov, int n)
{
	struct fuse_attr_out *attr;

	if (n < 2 || iov[1].iov_len < sizeof(*attr))
		return;
	attr = iov[1].iov_base;
	attr->attr_valid = 0;
	attr->attr_valid_nsec = 0;
}

ssize_t cmek_gate_writev(struct cmek_gate *gate, int fd, struct iovec *iov, int n)
{
	const struct fuse_out_header *out = iov[0].iov_base;
	struct worker *w = pthread_getspecific(gate->own);

	if (w && w->active && out->unique != 0) {
		w->failed = out->error != 0;
		if (w->op == FUSE_SETATTR && !w->failed && !w->let_in_open)
			tell_for_now(iov, n);
	}
	return writev(fd, iov, n);
}

/* ---- from outside ---- */

void cmek_gate_set(struct cmek_gate *gate, enum cmek_gate_state state)
{
	atomic_store(&gate->state, (int)state);
}

enum cmek_gate_state cmek_gate_state(const struct cmek_gate *gate)
{
	return (enum cmek_gate_state)atomic_load(&gate->state);
}

static void sleep_tick(void)
{
	const struct timespec tick = { 0, TICK_MS * 1000000L };

	(void)nanosleep(&tick, NULL); /* sooner is fine */
}

bool cmek_gate_wait(struct cmek_gate *gate, bool all, unsigned timeout_ms)
{
	uint64_t until_ns = now_ns() + (uint64_t)timeout_ms * 1000000;

	while (atomic_load(all ? &gate->n_all : &gate->n_open) > 0) {
		if (now_ns() >= until_ns)
			return false;
		sleep_tick();
	}
	return true;
}

bool cmek_gate_op(const struct cmek_gate *gate, unsigned i, struct cmek_gate_op *ret_op)
{
	const struct counts *c = gate->counts + i;
	unsigned k;

	if (i >= N_OPS)
		return false;
	memset(ret_op, 0, sizeof(*ret_op));
	/* Numbers that no operation has are told as one more "other" that never came. */
	ret_op->name = op_rows[i].name ? op_rows[i].name : op_rows[0].name;
	ret_op->n = atomic_load(&c->n);
	ret_op->failed = atomic_load(&c->failed);
	ret_op->total_ns = atomic_load(&c->total_ns);
	for (k = 0; k < CMEK_GATE_BUCKETS; k++)
		ret_op->buckets[k] = atomic_load(c->buckets + k);
	return true;
}

uint64_t cmek_gate_refused(const struct cmek_gate *gate)
{
	return atomic_load(&gate->refused);
}

/* ---- life ---- */

int cmek_gate_new(struct cmek_gate **ret_gate)
{
	struct cmek_gate *gate = calloc(1, sizeof(*gate));
	int rc;

	if (!gate)
		return -ENOMEM;
	rc = pthread_key_create(&gate->own, worker_ended);
	if (rc != 0) {
		free(gate);
		return -rc;
	}
	*ret_gate = gate;
	return 0;
}

void cmek_gate_free(struct cmek_gate *gate)
{
	void *own;

	if (!gate)
		return;
	/* Threads that have ended freed theirs; this thread's own is freed here. */
	own = pthread_getspecific(gate->own);
	(void)pthread_key_delete(gate->own);
	free(own);
	free(gate);
}
