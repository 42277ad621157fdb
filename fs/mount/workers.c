/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Which thread takes the next request. The kernel wakes those that wait for one in turn, so with many of them each
 * request would find a thread whose stack and buffers no cache has any more: with both cores busy, a lone user's took twice
 * as long. With few of them whoever has got a request often has to call another one: on an idle machine stat, small reads
 * and fdatasync were 10 to 40 % slower with two than with four.
 * So no more than four wait in the kernel; the others are parked, and the last one parked is the first to be called. It
 * must not know what a request is.
 */
#include "config.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include "base/secret.h"
#include "fs/mount/workers.h"

/* With several, one is still there when others have got requests, and nobody has to be called for each. */
#define READERS_MAX 4
/* Interrupts a thread's wait for a request; the handler does nothing. */
#define WAKE_SIGNAL SIGUSR1
#define WAKE_TICK_MS 10
/* Serving goes no deeper than this. */
#define STACK_BYTES (128u << 10)

struct worker {
	struct cmek_workers *workers;
	pthread_t thread;
	pthread_cond_t called;
	struct worker *next_parked;
	bool parked, reading;
	unsigned round; /* the last round of forgetting it took part in */
	struct fuse_buf buf; /* only its own thread looks at it */
};

struct cmek_workers {
	struct fuse_session *fuse;
	struct cmek_workers_host host;
	unsigned max_threads;
	/* lock: the rest */
	pthread_mutex_t lock;
	pthread_cond_t ended;
	struct worker *all;    /* max_threads of them, the first n_threads in use */
	struct worker *parked; /* the last one parked is the first */
	unsigned n_threads, n_reading, n_running;
	unsigned round; /* of forgetting */
	uint64_t n_served, n_served_seen; /* seen: when somebody asked last */
	bool stopping;
	int error;
};

static void *worker_main(void *arg);

static void on_wake(int sig)
{
	(void)sig;
}

/* What asks the process to end is for its first thread. */
static int start_thread(struct worker *worker)
{
	sigset_t ends, old;
	int rc;

	(void)sigemptyset(&ends);
	(void)sigaddset(&ends, SIGTERM);
	(void)sigaddset(&ends, SIGINT);
	(void)sigaddset(&ends, SIGHUP);
	(void)sigaddset(&ends, SIGQUIT);
	(void)pthread_sigmask(SIG_BLOCK, &ends, &old);
	rc = pthread_create(&worker->thread, NULL, worker_main, worker);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}

/* Somebody else waits for the next request: one that is parked, or a new one while there may be more. */
static void call_one_locked(struct cmek_workers *workers)
{
	struct worker *worker = workers->parked;

	if (worker != NULL) {
		workers->parked = worker->next_parked;
		worker->parked = false;
		(void)pthread_cond_signal(&worker->called);
		return;
	}
	/* Without a new thread the next request waits for one of those that are there. */
	if (!workers->stopping && workers->n_threads < workers->max_threads &&
	    start_thread(workers->all + workers->n_threads) == 0) {
		workers->all[workers->n_threads].round = workers->round;
		workers->n_threads++;
		workers->n_running++;
	}
}

static void park_locked(struct worker *worker)
{
	struct cmek_workers *workers = worker->workers;

	worker->parked = true;
	worker->next_parked = workers->parked;
	workers->parked = worker;
	while (worker->parked && !workers->stopping)
		(void)pthread_cond_wait(&worker->called, &workers->lock);
}

/* From here on nobody waits for a request any more; those who do are interrupted by who wants to see the end. */
static void stop_locked(struct cmek_workers *workers, int error)
{
	unsigned i;

	if (!workers->stopping)
		workers->error = error;
	workers->stopping = true;
	for (i = 0; i < workers->n_threads; i++)
		(void)pthread_cond_signal(&workers->all[i].called);
}

/* Takes one request and serves it. The lock is held on entry and exit, and not in between. */
static void serve_one_locked(struct worker *worker)
{
	struct cmek_workers *workers = worker->workers;
	int n;

	worker->reading = true;
	workers->n_reading++;
	(void)pthread_mutex_unlock(&workers->lock);
	n = fuse_session_receive_buf(workers->fuse, &worker->buf);
	(void)pthread_mutex_lock(&workers->lock);
	workers->n_reading--;
	worker->reading = false;
	if (n == -EINTR || n == -EAGAIN)
		return;
	if (n <= 0) { /* 0: unmounted */
		stop_locked(workers, n);
		return;
	}
	if (workers->n_reading == 0)
		call_one_locked(workers);
	(void)pthread_mutex_unlock(&workers->lock);
	fuse_session_process_buf(workers->fuse, &worker->buf);
	workers->host.served(workers->host.arg);
	(void)pthread_mutex_lock(&workers->lock);
	workers->n_served++;
}

/*
 * What functions that have returned left below us: names, targets of links, pieces of blocks. A function of its own, so
 * that its frame lies where theirs were.
 */
static __attribute__((noinline)) void forget_stack(void)
{
	uint8_t left[STACK_BYTES];

	cmek_wipe(left, sizeof(left));
}

static void forget_locked(struct worker *worker)
{
	struct cmek_workers *workers = worker->workers;
	unsigned round = workers->round;

	(void)pthread_mutex_unlock(&workers->lock);
	/* All that libfuse allocated: the struct says how long the last request was. */
	if (worker->buf.mem != NULL)
		cmek_wipe(worker->buf.mem, malloc_usable_size(worker->buf.mem));
	workers->host.forget(workers->host.arg);
	forget_stack();
	(void)pthread_mutex_lock(&workers->lock);
	worker->round = round;
}

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	struct cmek_workers *workers = worker->workers;

	(void)pthread_mutex_lock(&workers->lock);
	while (!workers->stopping) {
		if (worker->round != workers->round)
			forget_locked(worker);
		else if (workers->n_reading < READERS_MAX)
			serve_one_locked(worker);
		else
			park_locked(worker);
	}
	workers->n_running--;
	(void)pthread_cond_broadcast(&workers->ended);
	(void)pthread_mutex_unlock(&workers->lock);
	return NULL;
}

struct cmek_workers *cmek_workers_new(struct fuse_session *fuse, unsigned max_threads,
				      const struct cmek_workers_host *host)
{
	struct cmek_workers *workers = calloc(1, sizeof(*workers));
	unsigned i;

	if (workers == NULL)
		return NULL;
	workers->all = calloc(max_threads, sizeof(*workers->all));
	if (workers->all == NULL) {
		free(workers);
		return NULL;
	}
	workers->fuse = fuse;
	workers->host = *host;
	workers->max_threads = max_threads;
	(void)pthread_mutex_init(&workers->lock, NULL);
	(void)pthread_cond_init(&workers->ended, NULL);
	for (i = 0; i < max_threads; i++) {
		workers->all[i].workers = workers;
		(void)pthread_cond_init(&workers->all[i].called, NULL);
	}
	return workers;
}

/* Interrupts those that wait in the kernel. One may be just about to: so again, until all have ended. */
static void interrupt_until_ended(struct cmek_workers *workers)
{
	struct timespec until;
	unsigned i;

	(void)pthread_mutex_lock(&workers->lock);
	while (workers->n_running > 0) {
		for (i = 0; i < workers->n_threads; i++)
			if (workers->all[i].reading)
				(void)pthread_kill(workers->all[i].thread, WAKE_SIGNAL);
		(void)clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += WAKE_TICK_MS * 1000000L;
		if (until.tv_nsec >= 1000000000L) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000L;
		}
		(void)pthread_cond_timedwait(&workers->ended, &workers->lock, &until);
	}
	(void)pthread_mutex_unlock(&workers->lock);
}

/* The threads that have not taken part in this round; those that wait for a request are interrupted. */
static unsigned count_behind_locked(struct cmek_workers *workers, unsigned round)
{
	unsigned i, n = 0;

	for (i = 0; i < workers->n_threads; i++) {
		if (workers->all[i].round == round)
			continue;
		if (workers->all[i].reading)
			(void)pthread_kill(workers->all[i].thread, WAKE_SIGNAL);
		n++;
	}
	return n;
}

bool cmek_workers_forget(struct cmek_workers *workers, unsigned timeout_ms)
{
	const struct timespec tick = { 0, WAKE_TICK_MS * 1000000L };
	unsigned round, behind, waited_ms = 0;

	(void)pthread_mutex_lock(&workers->lock);
	round = ++workers->round;
	while (workers->parked != NULL)
		call_one_locked(workers);
	/* One may be just about to wait: so again, until all have done it. */
	while ((behind = count_behind_locked(workers, round)) > 0 && !workers->stopping && waited_ms < timeout_ms) {
		(void)pthread_mutex_unlock(&workers->lock);
		(void)nanosleep(&tick, NULL); /* sooner is fine */
		waited_ms += WAKE_TICK_MS;
		(void)pthread_mutex_lock(&workers->lock);
	}
	(void)pthread_mutex_unlock(&workers->lock);
	return behind == 0;
}

bool cmek_workers_alive(struct cmek_workers *workers)
{
	bool alive;

	(void)pthread_mutex_lock(&workers->lock);
	alive = workers->n_reading > 0 || workers->n_served != workers->n_served_seen;
	workers->n_served_seen = workers->n_served;
	(void)pthread_mutex_unlock(&workers->lock);
	return alive;
}

int cmek_workers_run(struct cmek_workers *workers)
{
	struct sigaction action = { .sa_handler = on_wake };
	unsigned i;

	(void)sigaction(WAKE_SIGNAL, &action, NULL); /* can't fail with these arguments */
	workers->all[0].thread = pthread_self();
	workers->n_threads = workers->n_running = 1;
	(void)worker_main(workers->all);
	interrupt_until_ended(workers);
	for (i = 1; i < workers->n_threads; i++)
		(void)pthread_join(workers->all[i].thread, NULL);
	return workers->error;
}

void cmek_workers_stop(struct cmek_workers *workers)
{
	(void)pthread_mutex_lock(&workers->lock);
	stop_locked(workers, 0);
	(void)pthread_mutex_unlock(&workers->lock);
	interrupt_until_ended(workers);
}

void cmek_workers_free(struct cmek_workers *workers)
{
	unsigned i;

	if (workers == NULL)
		return;
	for (i = 0; i < workers->max_threads; i++) {
		free(workers->all[i].buf.mem);
		(void)pthread_cond_destroy(&workers->all[i].called);
	}
	(void)pthread_cond_destroy(&workers->ended);
	(void)pthread_mutex_destroy(&workers->lock);
	free(workers->all);
	free(workers);
}
