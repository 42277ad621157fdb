/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_WORKERS_H
#define CMEK_MOUNT_WORKERS_H

#include <stdbool.h>

#include "fs/mount/fuse.h"

/* The threads that take requests from the connection and answer them, in place of fuse_session_loop_mt(). */
struct cmek_workers;

/* Called by a serving thread: when it has served a request; when it shall clear what it keeps of contents. */
struct cmek_workers_host {
	void *arg;
	void (*served)(void *arg);
	void (*forget)(void *arg);
};

/* max_threads >= 1; threads begin as they are needed. The host struct is copied. NULL: no memory. */
struct cmek_workers *cmek_workers_new(struct fuse_session *fuse, unsigned max_threads,
				      const struct cmek_workers_host *host);

/*
 * Serves, with the caller as the first of the threads, until the file system is unmounted or cmek_workers_stop() is
 * heeded, and every request that was taken has been dealt with: 0, else -errno of the connection.
 */
int cmek_workers_run(struct cmek_workers *workers);

/* Makes run return; from another thread, while it runs. Takes no further request, waits for those that are being served. */
void cmek_workers_stop(struct cmek_workers *workers);

/*
 * Has every thread clear the buffer it reads requests into, what it left on its stack, and what the host knows of; from
 * another thread. Waits until all have, at most timeout_ms; false: one has not.
 */
bool cmek_workers_forget(struct cmek_workers *workers, unsigned timeout_ms);

/*
 * Whether requests are being dealt with: a thread waits for one, or one has been served since this was asked last. From
 * another thread; false while every thread there may be is busy with the same requests as then.
 */
bool cmek_workers_alive(struct cmek_workers *workers);

/* After run. NULL allowed. */
void cmek_workers_free(struct cmek_workers *workers);

#endif
