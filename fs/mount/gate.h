/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_GATE_H
#define CMEK_MOUNT_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/*
 * Which of the kernel's requests get in, and what is known of those that are inside. It sits between libfuse and the
 * connection (fuse_session_custom_io()), so no handler need know of it, and none can be forgotten. Thread-safe.
 *
 *   open      everything is served
 *   read-only what changes anything is refused, but for what the kernel writes back of its cache: users were told that
 *             it is written. A write is refused before it gets there: the kernel is told that the file has capabilities,
 *             and then wants them taken away, which is refused
 *   draining  what writes back and lets go is served (WRITE, FSYNC, FLUSH, times, RELEASE, FORGET, STATFS), so that what
 *             users were told is written can still be kept; all else is refused. GETATTR is, because the kernel asks it
 *             before it takes a write into its cache, where the data would be lost
 *   locked    what lets go is served, and STATFS; WRITE is refused, too
 *
 * Refused means EROFS while read-only, else EKEYREVOKED.
 */
enum cmek_gate_state {
	CMEK_GATE_OPEN,
	CMEK_GATE_READ_ONLY,
	CMEK_GATE_DRAINING,
	CMEK_GATE_LOCKED,
	CMEK_GATE_STATES,
};

struct cmek_gate;

/* 0 or -errno. */
int cmek_gate_new(struct cmek_gate **ret_gate);
/* After all threads that served have ended, but for the caller. NULL allowed. */
void cmek_gate_free(struct cmek_gate *gate);

/*
 * In the place of read(2) and writev(2) on the connection, by the serving threads (writev by others, too). A request that
 * is refused is answered here and does not come out. When a thread has done with the one it read, it says so.
 */
ssize_t cmek_gate_read(struct cmek_gate *gate, int fd, void *buf, size_t len);
void cmek_gate_finish(struct cmek_gate *gate);
ssize_t cmek_gate_writev(struct cmek_gate *gate, int fd, struct iovec *iov, int n);

void cmek_gate_set(struct cmek_gate *gate, enum cmek_gate_state state);
enum cmek_gate_state cmek_gate_state(const struct cmek_gate *gate);

/*
 * Waits until no request that was let in while the gate was in one of these states is being served: a sum of
 * CMEK_GATE_WHILE(state). At most timeout_ms; false: there still is one. To be called by a thread that serves none.
 */
#define CMEK_GATE_WHILE(state) (1u << (state))
#define CMEK_GATE_WHILE_ANY ((1u << CMEK_GATE_STATES) - 1)
bool cmek_gate_wait(struct cmek_gate *gate, unsigned states, unsigned timeout_ms);

/* What has been served since the mount, by operation. */
#define CMEK_GATE_BUCKETS 7
extern const double cmek_gate_bucket_s[CMEK_GATE_BUCKETS]; /* upper bounds, the last one is infinite */
struct cmek_gate_op {
	const char *name; /* "read" */
	uint64_t n, failed;
	uint64_t total_ns;
	uint64_t buckets[CMEK_GATE_BUCKETS]; /* how many took so long, each counted once */
};
/* Operation i, counted from 0; false: there is no such one. Operations that never came are told with n = 0. */
bool cmek_gate_op(const struct cmek_gate *gate, unsigned i, struct cmek_gate_op *ret_op);
/* Requests refused since the mount. */
uint64_t cmek_gate_refused(const struct cmek_gate *gate);

#endif
