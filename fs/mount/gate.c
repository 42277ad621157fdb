/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The gate in front of the handlers: lets requests in, counts them, refuses them. It reads no more of a request than its
 * head and the few arguments that tell reading from changing; it must not know files, keys, or why it is closed.
 */
#include "config.h"

#include "fs/mount/gate.h"

#include <errno.h>
#include <fcntl.h>
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

/* When an operation is let in, by what it does. */
enum rule {
	CHANGES = 0, /* only while open */
	READS,       /* and read-only */
	WRITES,      /* and what the kernel writes back, until it is locked */
	KEEPS,       /* until it is locked */
	LETS_GO,     /* always */
	/* these depend on their arguments */
	SETS,
	OPENS,
	ASKS,
};

/* What is not in the table is let in only while open, and counted as "other". */
static const struct op_row {
	const char *name;
	enum rule rule;
} op_rows[] = {
	[0] = { "other", CHANGES },
	[FUSE_LOOKUP] = { "lookup", READS },
	[FUSE_FORGET] = { "forget", LETS_GO },
	[FUSE_GETATTR] = { "getattr", READS },
	[FUSE_SETATTR] = { "setattr", SETS },
	[FUSE_READLINK] = { "readlink", READS },
	[FUSE_SYMLINK] = { "symlink", CHANGES },
	[FUSE_MKNOD] = { "mknod", CHANGES },
	[FUSE_MKDIR] = { "mkdir", CHANGES },
	[FUSE_UNLINK] = { "unlink", CHANGES },
	[FUSE_RMDIR] = { "rmdir", CHANGES },
	[FUSE_RENAME] = { "rename", CHANGES },
	[FUSE_LINK] = { "link", CHANGES },
	[FUSE_OPEN] = { "open", OPENS },
	[FUSE_READ] = { "read", READS },
	[FUSE_WRITE] = { "write", WRITES },
	[FUSE_STATFS] = { "statfs", LETS_GO },
	[FUSE_RELEASE] = { "release", LETS_GO },
	[FUSE_FSYNC] = { "fsync", KEEPS },
	[FUSE_SETXATTR] = { "setxattr", CHANGES },
	[FUSE_GETXATTR] = { "getxattr", ASKS },
	[FUSE_LISTXATTR] = { "listxattr", READS },
	[FUSE_REMOVEXATTR] = { "removexattr", CHANGES },
	[FUSE_FLUSH] = { "flush", KEEPS },
	[FUSE_INIT] = { "init", LETS_GO },
	[FUSE_OPENDIR] = { "opendir", READS },
	[FUSE_READDIR] = { "readdir", READS },
	[FUSE_RELEASEDIR] = { "releasedir", LETS_GO },
	[FUSE_FSYNCDIR] = { "fsyncdir", KEEPS },
	[FUSE_CREATE] = { "create", CHANGES },
	[FUSE_INTERRUPT] = { "interrupt", LETS_GO },
	[FUSE_DESTROY] = { "destroy", LETS_GO },
	[FUSE_NOTIFY_REPLY] = { "notify_reply", LETS_GO },
	[FUSE_BATCH_FORGET] = { "batch_forget", LETS_GO },
	[FUSE_FALLOCATE] = { "fallocate", CHANGES },
	[FUSE_READDIRPLUS] = { "readdirplus", READS },
	[FUSE_RENAME2] = { "rename2", CHANGES },
	[FUSE_LSEEK] = { "lseek", READS },
	[FUSE_COPY_FILE_RANGE] = { "copy_file_range", CHANGES },
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
	int let_in; /* the state in which it was */
	bool failed;
	bool takes_capability; /* it is REMOVEXATTR of security.capability */
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
	atomic_uint n[CMEK_GATE_STATES]; /* at work, by the state in which they were let in */
	atomic_bool told_capability; /* the kernel was told of one that need not be there */
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
	(void)atomic_fetch_sub(&w->gate->n[w->let_in], 1);
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

/* The arguments behind the head, NULL when the request is too short for them. */
static const void *arguments(const struct fuse_in_header *head, size_t len, size_t want)
{
	return len >= sizeof(*head) + want ? head + 1 : NULL;
}

/* Times alone. The kernel's own, of what it wrote back, come without atime; a user's don't, but for few. */
static bool sets_times(const struct fuse_in_header *head, size_t len, bool own)
{
	const struct fuse_setattr_in *in = arguments(head, len, sizeof(*in));
	uint32_t times = own ? FATTR_MTIME | FATTR_CTIME : SETATTR_TIMES;

	return in && !(in->valid & ~(times | SETATTR_HOW));
}

static bool opens_to_read(const struct fuse_in_header *head, size_t len)
{
	const struct fuse_open_in *in = arguments(head, len, sizeof(*in));

	return in && (in->flags & O_ACCMODE) == O_RDONLY && !(in->flags & O_TRUNC);
}

static const char capability[] = "security.capability";

/* Before a write gets into its cache the kernel asks for the length of this; who wants to know it asks for its value. */
static bool asks_for_capability(const struct fuse_in_header *head, size_t len)
{
	const struct fuse_getxattr_in *in = arguments(head, len, sizeof(*in) + sizeof(capability));

	return in && in->size == 0 && memcmp(in + 1, capability, sizeof(capability)) == 0;
}

static bool takes_capability(const struct fuse_in_header *head, size_t len)
{
	const char *name = arguments(head, len, sizeof(capability));

	return name && memcmp(name, capability, sizeof(capability)) == 0;
}

static bool is_from_cache(const struct fuse_in_header *head, size_t len)
{
	const struct fuse_write_in *in = arguments(head, len, sizeof(*in));

	return in && (in->write_flags & FUSE_WRITE_CACHE);
}

static bool is_served_read_only(unsigned op, const struct fuse_in_header *head, size_t len)
{
	switch (op_rows[op].rule) {
	case READS:
	case KEEPS:
	case ASKS: /* or answered elsewhere */
		return true;
	case WRITES:
		return is_from_cache(head, len);
	case SETS:
		return sets_times(head, len, true);
	case OPENS:
		return opens_to_read(head, len);
	default:
		return false;
	}
}

static bool is_let_in(int state, unsigned op, const struct fuse_in_header *head, size_t len)
{
	enum rule rule = op_rows[op].rule;

	if (state == CMEK_GATE_OPEN || rule == LETS_GO)
		return true;
	if (state == CMEK_GATE_LOCKED)
		return false;
	if (state == CMEK_GATE_DRAINING)
		return rule == WRITES || rule == KEEPS || (rule == SETS && sets_times(head, len, false));
	return is_served_read_only(op, head, len);
}

static void answer(int fd, const struct fuse_in_header *head, int error, const void *data, size_t len)
{
	struct fuse_out_header out = { .len = (uint32_t)(sizeof(out) + len), .error = error, .unique = head->unique };
	struct iovec iov[2] = { { &out, sizeof(out) }, { (void *)data, len } };

	(void)!writev(fd, iov, len > 0 ? 2 : 1); /* fails when the asker is gone */
}

static void refuse(struct cmek_gate *gate, int fd, const struct fuse_in_header *head, int state)
{
	(void)atomic_fetch_add(&gate->refused, 1);
	answer(fd, head, state == CMEK_GATE_READ_ONLY ? -EROFS : -EKEYREVOKED, NULL, 0);
}

/* True: the request in buf is the thread's to serve. */
static bool let_in(struct worker *w, int fd, const void *buf, size_t len)
{
	const struct fuse_getxattr_out there = { .size = 20 }; /* XATTR_CAPS_SZ_2: any length that is not 0 will do */
	struct cmek_gate *gate = w->gate;
	const struct fuse_in_header *head = buf;
	int state, now = atomic_load(&gate->state);

	w->op = head->opcode < N_OPS && op_rows[head->opcode].name ? head->opcode : 0;
	/* The count goes up first, whatever comes of it; see struct cmek_gate. */
	do {
		state = now;
		(void)atomic_fetch_add(gate->n + state, 1);
		now = atomic_load(&gate->state);
		if (now != state)
			(void)atomic_fetch_sub(gate->n + state, 1);
	} while (now != state);
	w->let_in = state;
	if (state == CMEK_GATE_READ_ONLY && w->op == FUSE_GETXATTR && asks_for_capability(head, len)) {
		atomic_store(&gate->told_capability, true);
		answer(fd, head, 0, &there, sizeof(there));
	} else if (is_let_in(state, w->op, head, len)) {
		w->active = true;
		w->failed = false;
		w->takes_capability = w->op == FUSE_REMOVEXATTR && takes_capability(head, len);
		w->start_ns = now_ns();
		return true;
	} else {
		refuse(gate, fd, head, state);
	}
	(void)atomic_fetch_sub(gate->n + state, 1);
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
		/* The kernel says so when a last request was on its way out as the mount ended: there are no more, as ever. */
		if (n < 0 && errno == ECONNABORTED)
			errno = ENODEV;
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
	struct fuse_out_header *out = iov[0].iov_base;
	struct worker *w = pthread_getspecific(gate->own);

	if (w && w->active && out->unique != 0) {
		/* A write that began while it was read-only, and goes on now: what it was told of is gone. */
		if (w->takes_capability && out->error == -ENODATA && atomic_load(&gate->told_capability))
			out->error = 0;
		w->failed = out->error != 0;
		if (w->op == FUSE_SETATTR && !w->failed && w->let_in == CMEK_GATE_DRAINING)
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

bool cmek_gate_wait(struct cmek_gate *gate, unsigned states, unsigned timeout_ms)
{
	uint64_t until_ns = now_ns() + (uint64_t)timeout_ms * 1000000;
	unsigned state;

	for (state = 0; state < CMEK_GATE_STATES; state++) {
		while ((states & CMEK_GATE_WHILE(state)) && atomic_load(gate->n + state) > 0) {
			if (now_ns() >= until_ns)
				return false;
			sleep_tick();
		}
	}
	return true;
}

bool cmek_gate_op(const struct cmek_gate *gate, unsigned i, struct cmek_gate_op *ret_op)
{
	const struct counts *c;
	unsigned k;

	if (i >= N_OPS)
		return false;
	c = gate->counts + i;
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
