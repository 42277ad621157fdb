/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * When re-encryption runs: its thread, what people have asked of it, and where that is kept over mounts. It must not know
 * what is moved and how.
 */
#include "config.h"

#include "fs/mount/reencrypt.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/text.h"
#include "kms/json.h"

#define STATE_FILE "reencrypt"
#define STATE_FILE_MAX 4096
#define STATE_FORMAT 1
/* How fast it is, is told of the last so and so long. */
#define SPEED_MS 5000u
/* A directory that is being listed is left alone, and looked at again after this. */
#define BUSY_MS 2000u
/* One pass finds nothing when the one before it has moved everything; more only go on if others keep moving things. */
#define PASSES_MAX 100u

enum state { IDLE, RUNNING, PAUSED, DONE, INCOMPLETE, FAILED };
static const char *const state_names[] = { "idle", "running", "paused", "done", "incomplete", "failed" };

struct cmek_reencrypt {
	struct cmek_reencrypt_params params; /* constant */
	pthread_t thread;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t cond;  /* any of it has changed; CLOCK_MONOTONIC */
	enum state state;
	bool ending;  /* the mount is */
	bool held;    /* the volume is locked */
	bool at_work; /* between enter and leave */
	bool again;   /* begun anew while it ran: what was there before has been looked at too early */
	uint64_t rate; /* bytes a second, 0 = no limit */
	uint64_t due_ms; /* the next step may begin */
	int64_t started;
	int problem; /* FAILED: -errno */
	struct cmek_reencrypt_counts counts;
	uint64_t mark_ms[2], mark_done[2]; /* when so much was done: the older of the two is what speed is measured from */
};

const struct cmek_reencrypt_params *cmek_reencrypt_params(const struct cmek_reencrypt *work)
{
	return &work->params;
}

/* ---- what is kept over mounts ---- */

static int write_state(const struct cmek_reencrypt *work, enum state state, uint64_t rate, struct cmek_error *err)
{
	char *text = NULL, time[CMEK_TIME_TEXT];
	json_t *json;
	int rc;

	cmek_time_encode(work->started, time);
	json = json_pack("{s:i, s:s, s:I, s:s}", "format", STATE_FORMAT, "state", state_names[state], "rate_bytes",
			 (json_int_t)rate, "started", time);
	if (json)
		text = json_dumps(json, JSON_COMPACT);
	json_decref(json);
	if (!text)
		return cmek_error_sys(err, ENOMEM, "re-encryption");
	rc = cmek_replace_file(work->params.meta_fd, STATE_FILE, text, strlen(text), 0600, err);
	free(text);
	return rc;
}

static void remove_state(const struct cmek_reencrypt *work)
{
	/* What is left says "go on", and there will be nothing to do. */
	if (unlinkat(work->params.meta_fd, STATE_FILE, 0) == 0)
		(void)fsync(work->params.meta_fd);
}

static int parse_state(const struct cmek_json_at *at, struct cmek_reencrypt *work, struct cmek_error *err)
{
	const char *state = NULL;
	uint64_t format = 0;
	int rc = cmek_json_uint(at, "format", STATE_FORMAT, STATE_FORMAT, &format, err);

	if (rc == 0)
		rc = cmek_json_string(at, "state", &state, err);
	if (rc == 0)
		rc = cmek_json_uint(at, "rate_bytes", 0, INT64_MAX, &work->rate, err);
	if (rc == 0)
		rc = cmek_json_time(at, "started", &work->started, err);
	if (rc == 0)
		work->state = strcmp(state, state_names[PAUSED]) == 0 ? PAUSED : RUNNING;
	return rc;
}

/* Nothing in it is worth a mount: what can't be read is as if it were not there. */
static void read_state(struct cmek_reencrypt *work)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_json_at at;
	uint8_t *text = NULL;
	json_t *json = NULL;
	size_t len = 0;
	int rc = cmek_read_file(work->params.meta_fd, STATE_FILE, STATE_FILE_MAX, &text, &len, &err);

	if (rc == -ENOENT)
		return;
	if (rc == 0)
		rc = cmek_json_parse(text, len, "the state of re-encryption", &json, &err);
	if (rc == 0) {
		at = cmek_json_root(json, "the state of re-encryption");
		rc = parse_state(&at, work, &err);
	}
	json_decref(json);
	free(text);
	if (rc != 0)
		cmek_log(CMEK_LOG_WARNING, "re-encryption that an earlier mount had begun does not go on: %s", err.text);
	else
		cmek_log(CMEK_LOG_NOTICE, "re-encryption that an earlier mount had begun %s",
			 work->state == RUNNING ? "goes on" : "is still paused");
}

/* ---- the thread ---- */

static bool is_wanted_locked(const struct cmek_reencrypt *work)
{
	return !work->ending && (work->state == RUNNING || work->state == PAUSED);
}

bool cmek_reencrypt_enter(struct cmek_reencrypt *work)
{
	bool go;

	(void)pthread_mutex_lock(&work->lock);
	while (!work->ending && (work->held || work->state == PAUSED))
		(void)pthread_cond_wait(&work->cond, &work->lock);
	go = is_wanted_locked(work);
	work->at_work = true;
	(void)pthread_mutex_unlock(&work->lock);
	return go;
}

void cmek_reencrypt_leave(struct cmek_reencrypt *work)
{
	(void)pthread_mutex_lock(&work->lock);
	work->at_work = false;
	(void)pthread_cond_broadcast(&work->cond);
	(void)pthread_mutex_unlock(&work->lock);
}

static void wait_until_locked(struct cmek_reencrypt *work, uint64_t until_ms)
{
	struct timespec until = { (time_t)(until_ms / 1000), (long)(until_ms % 1000) * 1000000 };

	(void)pthread_cond_timedwait(&work->cond, &work->lock, &until);
}

void cmek_reencrypt_tell(struct cmek_reencrypt *work, const struct cmek_reencrypt_counts *counts, uint64_t bytes)
{
	uint64_t now = cmek_now_ms();

	(void)pthread_mutex_lock(&work->lock);
	work->counts = *counts;
	if (now - work->mark_ms[1] >= SPEED_MS || counts->bytes_done < work->mark_done[1]) {
		work->mark_ms[0] = work->mark_ms[1];
		work->mark_done[0] = work->mark_done[1];
		work->mark_ms[1] = now;
		work->mark_done[1] = counts->bytes_done;
	}
	/* Time that went by unused is not made up for. */
	if (work->due_ms < now)
		work->due_ms = now;
	if (work->rate > 0)
		work->due_ms += bytes * 1000 / work->rate;
	while (work->rate > 0 && work->state == RUNNING && !work->ending && !work->held && now < work->due_ms) {
		wait_until_locked(work, work->due_ms);
		now = cmek_now_ms();
	}
	if (work->rate == 0)
		work->due_ms = 0;
	(void)pthread_mutex_unlock(&work->lock);
}

static void begin_marks(struct cmek_reencrypt *work)
{
	(void)pthread_mutex_lock(&work->lock);
	work->mark_ms[0] = work->mark_ms[1] = cmek_now_ms();
	work->mark_done[0] = work->mark_done[1] = 0;
	(void)pthread_mutex_unlock(&work->lock);
}

/* Somebody is in the middle of a listing: it can take a while, and a lock or an end may come first. */
static void wait_for_listings(struct cmek_reencrypt *work)
{
	uint64_t until_ms = cmek_now_ms() + BUSY_MS;

	(void)pthread_mutex_lock(&work->lock);
	while (work->state == RUNNING && !work->ending && cmek_now_ms() < until_ms)
		wait_until_locked(work, until_ms);
	(void)pthread_mutex_unlock(&work->lock);
}

/* Pass after pass, until one finds nothing to move. 0, -ECANCELED or -errno. */
static int run(struct cmek_reencrypt *work, struct cmek_reencrypt_counts *counts)
{
	uint16_t dek;
	bool again;
	int r;

	memset(counts, 0, sizeof(*counts));
	r = cmek_reencrypt_measure(work, counts);
	do {
		if (r < 0)
			return r;
		(void)pthread_mutex_lock(&work->lock);
		work->again = false;
		(void)pthread_mutex_unlock(&work->lock);
		counts->pass++;
		dek = cmek_keyring_active_dek(work->params.ring);
		begin_marks(work);
		r = cmek_reencrypt_pass(work, counts);
		(void)pthread_mutex_lock(&work->lock);
		again = work->again || dek == 0 || dek != cmek_keyring_active_dek(work->params.ring);
		work->counts = *counts;
		(void)pthread_mutex_unlock(&work->lock);
		if (r == 0 && counts->busy > 0)
			wait_for_listings(work);
	} while (r < 0 || again || counts->busy > 0 || (counts->moved > 0 && counts->pass < PASSES_MAX));
	return 0;
}

static void end_run(struct cmek_reencrypt *work, const struct cmek_reencrypt_counts *counts, int r)
{
	(void)pthread_mutex_lock(&work->lock);
	work->counts = *counts;
	if (r == 0 && is_wanted_locked(work) && !work->again) {
		work->state = counts->moved + counts->bad + counts->left > 0 ? INCOMPLETE : DONE;
		remove_state(work);
	} else if (r < 0 && r != -ECANCELED && is_wanted_locked(work)) {
		work->state = FAILED;
		work->problem = r;
	}
	(void)pthread_mutex_unlock(&work->lock);
	if (r == 0)
		cmek_log(CMEK_LOG_NOTICE, "re-encryption has come to its end: %llu bytes and %llu names moved, %llu blocks or "
			 "names do not open, %llu could not be stored anew", (unsigned long long)counts->bytes_moved,
			 (unsigned long long)counts->names_moved,
			 (unsigned long long)counts->bad, (unsigned long long)counts->left);
	else if (r != -ECANCELED)
		cmek_log(CMEK_LOG_ERROR, "re-encryption has stopped: %s", strerror(-r));
}

static void *work_main(void *arg)
{
	struct cmek_reencrypt *work = arg;
	struct cmek_reencrypt_counts counts;
	bool ending;
	int r;

	for (;;) {
		(void)pthread_mutex_lock(&work->lock);
		while (!work->ending && work->state != RUNNING)
			(void)pthread_cond_wait(&work->cond, &work->lock);
		ending = work->ending;
		(void)pthread_mutex_unlock(&work->lock);
		if (ending)
			return NULL;
		r = run(work, &counts);
		end_run(work, &counts, r);
	}
}

int cmek_reencrypt_new(const struct cmek_reencrypt_params *params, struct cmek_reencrypt **ret_work, struct cmek_error *err)
{
	struct cmek_reencrypt *work = calloc(1, sizeof(*work));
	pthread_condattr_t attr;
	int rc;

	if (!work)
		return cmek_error_sys(err, ENOMEM, "re-encryption");
	work->params = *params;
	(void)pthread_mutex_init(&work->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&work->cond, &attr);
	(void)pthread_condattr_destroy(&attr);
	read_state(work);
	rc = pthread_create(&work->thread, NULL, work_main, work);
	if (rc != 0) {
		(void)pthread_cond_destroy(&work->cond);
		(void)pthread_mutex_destroy(&work->lock);
		free(work);
		return cmek_error_sys(err, rc, "starting a thread");
	}
	*ret_work = work;
	return 0;
}

void cmek_reencrypt_free(struct cmek_reencrypt *work)
{
	if (!work)
		return;
	(void)pthread_mutex_lock(&work->lock);
	work->ending = true;
	(void)pthread_cond_broadcast(&work->cond);
	(void)pthread_mutex_unlock(&work->lock);
	(void)pthread_join(work->thread, NULL);
	(void)pthread_cond_destroy(&work->cond);
	(void)pthread_mutex_destroy(&work->lock);
	free(work);
}

/* ---- what people ask ---- */

int cmek_reencrypt_start(struct cmek_reencrypt *work, uint64_t rate, struct cmek_error *err)
{
	int rc;

	(void)pthread_mutex_lock(&work->lock);
	if (rate == CMEK_REENCRYPT_RATE_KEEP)
		rate = work->rate;
	if (work->state != RUNNING && work->state != PAUSED) {
		work->started = (int64_t)time(NULL);
		memset(&work->counts, 0, sizeof(work->counts));
	}
	rc = write_state(work, RUNNING, rate, err);
	if (rc == 0) {
		work->rate = rate;
		work->due_ms = 0;
		work->problem = 0;
		work->again = true;
		work->state = RUNNING;
		(void)pthread_cond_broadcast(&work->cond);
	}
	(void)pthread_mutex_unlock(&work->lock);
	return rc;
}

int cmek_reencrypt_pause(struct cmek_reencrypt *work, struct cmek_error *err)
{
	int rc = 0;

	(void)pthread_mutex_lock(&work->lock);
	if (work->state != RUNNING && work->state != PAUSED)
		rc = cmek_error_set(err, CMEK_E_USAGE, EINVAL, "re-encryption does not run");
	if (rc == 0)
		rc = write_state(work, PAUSED, work->rate, err);
	if (rc == 0) {
		work->state = PAUSED;
		(void)pthread_cond_broadcast(&work->cond);
		/* Whoever asked may rely on it. */
		while (work->at_work)
			(void)pthread_cond_wait(&work->cond, &work->lock);
	}
	(void)pthread_mutex_unlock(&work->lock);
	return rc;
}

int cmek_reencrypt_stop(struct cmek_reencrypt *work, struct cmek_error *err)
{
	(void)err;
	(void)pthread_mutex_lock(&work->lock);
	remove_state(work);
	work->state = IDLE;
	(void)pthread_cond_broadcast(&work->cond);
	while (work->at_work)
		(void)pthread_cond_wait(&work->cond, &work->lock);
	(void)pthread_mutex_unlock(&work->lock);
	return 0;
}

void cmek_reencrypt_hold(struct cmek_reencrypt *work)
{
	if (!work)
		return;
	(void)pthread_mutex_lock(&work->lock);
	work->held = true;
	(void)pthread_cond_broadcast(&work->cond);
	while (work->at_work)
		(void)pthread_cond_wait(&work->cond, &work->lock);
	(void)pthread_mutex_unlock(&work->lock);
}

void cmek_reencrypt_release(struct cmek_reencrypt *work)
{
	if (!work)
		return;
	(void)pthread_mutex_lock(&work->lock);
	work->held = false;
	(void)pthread_cond_broadcast(&work->cond);
	(void)pthread_mutex_unlock(&work->lock);
}

/* Bytes a second, lately. lock is held. */
static uint64_t speed_locked(const struct cmek_reencrypt *work)
{
	uint64_t now = cmek_now_ms(), ms = now - work->mark_ms[0];

	if (work->state != RUNNING || ms == 0 || work->counts.bytes_done < work->mark_done[0])
		return 0;
	return (work->counts.bytes_done - work->mark_done[0]) * 1000 / ms;
}

json_t *cmek_reencrypt_json(struct cmek_reencrypt *work)
{
	struct cmek_reencrypt_counts counts;
	char started[CMEK_TIME_TEXT];
	uint64_t speed, to_do;
	json_t *json;

	if (!work)
		return json_null();
	(void)pthread_mutex_lock(&work->lock);
	counts = work->counts;
	speed = speed_locked(work);
	to_do = counts.bytes_total > counts.bytes_done ? counts.bytes_total - counts.bytes_done : 0;
	json = json_pack("{s:s, s:i, s:I, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "state", state_names[work->state],
			 "active_dek", (int)cmek_keyring_active_dek(work->params.ring), "rate_limit_bytes",
			 (json_int_t)work->rate, "pass", (int)counts.pass, "bytes_total", (json_int_t)counts.bytes_total,
			 "bytes_done", (json_int_t)counts.bytes_done, "bytes_moved", (json_int_t)counts.bytes_moved,
			 "files_total", (json_int_t)counts.files_total, "files_done", (json_int_t)counts.files_done, "bad",
			 (json_int_t)counts.bad, "left", (json_int_t)counts.left, "names_moved",
			 (json_int_t)counts.names_moved, "bytes_per_second", (json_int_t)speed);
	if (json) {
		cmek_time_encode(work->started, started);
		json_object_set_new(json, "started", work->started ? json_string(started) : json_null());
		json_object_set_new(json, "seconds_left",
				    speed > 0 && counts.pass == 1 ? json_integer((json_int_t)(to_do / speed)) : json_null());
		json_object_set_new(json, "problem", work->problem ? json_string(strerror(-work->problem)) : json_null());
	}
	(void)pthread_mutex_unlock(&work->lock);
	return json;
}
