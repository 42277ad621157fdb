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
#include <stdio.h>
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
/* How often it is looked whether the grace of a retired data key is over: the clock can be set. */
#define GRACE_LOOK_S 60
#define OLD_DEKS_MAX 256u
/* One pass finds nothing when the one before it has moved everything; more only go on if others keep moving things. */
#define PASSES_MAX 100u

enum state { IDLE, RUNNING, PAUSED, DONE, INCOMPLETE, FAILED };
static const char *const state_names[CMEK_REENCRYPT_STATES] = { "idle", "running", "paused", "done", "incomplete", "failed" };

/* What keeps older data keys from being retired. */
struct hindrance {
	char stored[CMEK_REENCRYPT_STORED]; /* below the store; "" = not known */
	uint64_t inode;   /* of the store, 0 = not known */
	char why[80];
};

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
	uint64_t grace_s;
	uint64_t due_ms; /* the next step may begin */
	int64_t destroy_at; /* a retired data key is due, Unix seconds; 0 = none */
	int64_t proved;     /* when counts.looked was proved, 0 = not by the last run */
	struct hindrance hindrances[CMEK_REENCRYPT_HINDRANCES];
	unsigned n_hindrances; /* all of them, also those that found no room */
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

static int write_state(const struct cmek_reencrypt *work, enum state state, uint64_t rate, uint64_t grace_s,
		       struct cmek_error *err)
{
	char *text = NULL, time[CMEK_TIME_TEXT];
	json_t *json;
	int rc;

	cmek_time_encode(work->started, time);
	json = json_pack("{s:i, s:s, s:I, s:I, s:s}", "format", STATE_FORMAT, "state", state_names[state], "rate_bytes",
			 (json_int_t)rate, "grace_s", (json_int_t)grace_s, "started", time);
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
	if (rc == 0 && cmek_json_has(at, "grace_s"))
		rc = cmek_json_uint(at, "grace_s", 0, CMEK_REENCRYPT_GRACE_MAX_S, &work->grace_s, err);
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

void cmek_reencrypt_wait(struct cmek_reencrypt *work, unsigned ms)
{
	uint64_t until_ms = cmek_now_ms() + ms;

	(void)pthread_mutex_lock(&work->lock);
	while (work->state == RUNNING && !work->ending && cmek_now_ms() < until_ms)
		wait_until_locked(work, until_ms);
	(void)pthread_mutex_unlock(&work->lock);
}

void cmek_reencrypt_hinder(struct cmek_reencrypt *work, const char *stored, uint64_t inode, const char *why)
{
	struct hindrance *h = work->hindrances;

	(void)pthread_mutex_lock(&work->lock);
	if (work->n_hindrances < CMEK_REENCRYPT_HINDRANCES) {
		h += work->n_hindrances;
		h->inode = inode;
		(void)snprintf(h->stored, sizeof(h->stored), "%s", stored);
		(void)snprintf(h->why, sizeof(h->why), "%s", why);
	}
	work->n_hindrances++;
	(void)pthread_mutex_unlock(&work->lock);
}

/* ---- passes ---- */

/* Whether nothing is left to be done by another pass. */
static bool has_ended(const struct cmek_reencrypt_counts *counts, size_t n_old)
{
	if (counts->busy > 0)
		return false;
	if (counts->bad + counts->left > 0 && counts->moved + counts->old == 0)
		return true;
	if (counts->moved + counts->old == 0 && (counts->proved || n_old == 0))
		return true;
	return counts->pass >= PASSES_MAX;
}

/* One pass; *ret_again: others have changed the keys, or begun anew, meanwhile. */
static int run_pass(struct cmek_reencrypt *work, struct cmek_reencrypt_counts *counts, bool *ret_again)
{
	uint16_t dek;
	int r;

	(void)pthread_mutex_lock(&work->lock);
	work->again = false;
	work->n_hindrances = 0;
	(void)pthread_mutex_unlock(&work->lock);
	counts->pass++;
	dek = cmek_keyring_active_dek(work->params.ring);
	begin_marks(work);
	r = cmek_reencrypt_pass(work, counts);
	(void)pthread_mutex_lock(&work->lock);
	*ret_again = work->again || dek == 0 || dek != cmek_keyring_active_dek(work->params.ring);
	work->counts = *counts;
	(void)pthread_mutex_unlock(&work->lock);
	return r;
}

/* The data keys that nothing is under any more are retired; with no grace all that are retired are destroyed, too. */
static int end_deks(struct cmek_reencrypt *work, struct cmek_reencrypt_counts *counts, const uint16_t *old, size_t n_old)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	int64_t next = 0;
	uint64_t grace_s;
	int r = 0;

	(void)pthread_mutex_lock(&work->lock);
	grace_s = work->grace_s;
	(void)pthread_mutex_unlock(&work->lock);
	if (n_old > 0)
		r = cmek_reencrypt_retire(work, counts, old, n_old, grace_s);
	if (r != 0)
		return r < 0 ? r : 0;
	(void)pthread_mutex_lock(&work->lock);
	work->proved = n_old > 0 ? (int64_t)time(NULL) : 0;
	work->destroy_at = 1; /* to be asked for when this is over */
	(void)pthread_mutex_unlock(&work->lock);
	if (grace_s > 0)
		return 0;
	r = cmek_reencrypt_enter(work) ? work->params.host.destroy(work->params.host.arg, true, &next, &err) : -ECANCELED;
	cmek_reencrypt_leave(work);
	if (r < 0 && r != -ECANCELED)
		cmek_log(CMEK_LOG_ERROR, "retired data keys could not be destroyed: %s", err.text);
	return r;
}

/* Pass after pass, until one finds nothing to move, and proves it where that is of use. 0, -ECANCELED or -errno. */
static int run(struct cmek_reencrypt *work, struct cmek_reencrypt_counts *counts)
{
	uint16_t old[OLD_DEKS_MAX];
	bool again = true;
	size_t n_old;
	int r;

	memset(counts, 0, sizeof(*counts));
	r = cmek_reencrypt_measure(work, counts);
	do {
		if (r < 0)
			return r;
		if (again)
			counts->pass = 0;
		n_old = cmek_keyring_old_deks(work->params.ring, old, OLD_DEKS_MAX);
		n_old = n_old < OLD_DEKS_MAX ? n_old : OLD_DEKS_MAX;
		/* The first one moves most, and would find that. */
		counts->proving = n_old > 0 && counts->pass > 0;
		r = run_pass(work, counts, &again);
		if (r == 0 && counts->busy > 0)
			cmek_reencrypt_wait(work, BUSY_MS);
	} while (r < 0 || again || !has_ended(counts, n_old));
	return counts->moved + counts->old + counts->bad + counts->left > 0 || (n_old > 0 && !counts->proved) ?
		       0 :
		       end_deks(work, counts, old, n_old);
}

static void end_run(struct cmek_reencrypt *work, const struct cmek_reencrypt_counts *counts, int r)
{
	(void)pthread_mutex_lock(&work->lock);
	work->counts = *counts;
	if (r == 0 && is_wanted_locked(work) && !work->again) {
		work->state = counts->moved + counts->old + counts->bad + counts->left > 0 || work->n_hindrances > 0 ||
					      (counts->proving && !counts->proved) ?
				      INCOMPLETE :
				      DONE;
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

/* The grace of a retired data key can be over while nothing else is to be done. lock is held on entry and exit. */
static void destroy_due_locked(struct cmek_reencrypt *work)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	int64_t next = 0;
	int r;

	work->at_work = true;
	(void)pthread_mutex_unlock(&work->lock);
	r = work->params.host.destroy(work->params.host.arg, false, &next, &err);
	if (r < 0)
		cmek_log(CMEK_LOG_WARNING, "a retired data key is not destroyed yet: %s", err.text);
	(void)pthread_mutex_lock(&work->lock);
	work->at_work = false;
	work->destroy_at = r < 0 ? (int64_t)time(NULL) + GRACE_LOOK_S : next;
	(void)pthread_cond_broadcast(&work->cond);
}

static void wait_for_work_locked(struct cmek_reencrypt *work)
{
	int64_t left_s = work->destroy_at - (int64_t)time(NULL);

	if (work->destroy_at == 0 || work->held)
		(void)pthread_cond_wait(&work->cond, &work->lock);
	else if (left_s > 0)
		wait_until_locked(work, cmek_now_ms() + (uint64_t)(left_s < GRACE_LOOK_S ? left_s : GRACE_LOOK_S) * 1000);
	else
		destroy_due_locked(work);
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
			wait_for_work_locked(work);
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
	work->grace_s = CMEK_REENCRYPT_GRACE_S;
	work->destroy_at = 1; /* not known: to be asked for */
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

int cmek_reencrypt_start(struct cmek_reencrypt *work, uint64_t rate, uint64_t grace_s, struct cmek_error *err)
{
	bool goes_on;
	int rc;

	(void)pthread_mutex_lock(&work->lock);
	goes_on = work->state == RUNNING || work->state == PAUSED;
	if (rate == CMEK_REENCRYPT_KEEP)
		rate = work->rate;
	/* That keys go at once is to be said each time. */
	if (grace_s == CMEK_REENCRYPT_KEEP)
		grace_s = goes_on ? work->grace_s : CMEK_REENCRYPT_GRACE_S;
	if (!goes_on) {
		work->started = (int64_t)time(NULL);
		work->proved = 0;
		work->n_hindrances = 0;
		memset(&work->counts, 0, sizeof(work->counts));
	}
	rc = write_state(work, RUNNING, rate, grace_s, err);
	if (rc == 0) {
		work->rate = rate;
		work->grace_s = grace_s;
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
		rc = write_state(work, PAUSED, work->rate, work->grace_s, err);
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

/* What the last run has proved; null: nothing. lock is held. */
static json_t *proof_json(const struct cmek_reencrypt *work)
{
	const struct cmek_reencrypt_looked *looked = &work->counts.looked;
	char when[CMEK_TIME_TEXT];

	if (work->proved == 0)
		return json_null();
	cmek_time_encode(work->proved, when);
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "time", when, "directories",
			 (json_int_t)looked->directories, "names", (json_int_t)looked->names, "symlinks",
			 (json_int_t)looked->targets, "attributes", (json_int_t)looked->attributes, "files",
			 (json_int_t)looked->files, "map_pages", (json_int_t)looked->pages, "blocks",
			 (json_int_t)looked->blocks, "nameless", (json_int_t)looked->nameless, "moved_meanwhile",
			 (json_int_t)looked->moved, "journal_record", (json_int_t)looked->journal_seq);
}

/* lock is held. */
static json_t *hindrances_json(const struct cmek_reencrypt *work)
{
	json_t *list = json_array();
	unsigned i;

	for (i = 0; i < work->n_hindrances && i < CMEK_REENCRYPT_HINDRANCES; i++) {
		const struct hindrance *h = work->hindrances + i;

		json_array_append_new(list, json_pack("{s:s?, s:o, s:s}", "stored", h->stored[0] ? h->stored : NULL, "inode",
						      h->inode ? json_integer((json_int_t)h->inode) : json_null(), "why",
						      h->why));
	}
	return list;
}

const char *cmek_reencrypt_state_name(unsigned i)
{
	return state_names[i];
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
		json_object_set_new(json, "grace_s", json_integer((json_int_t)work->grace_s));
		json_object_set_new(json, "proving", json_boolean(work->state == RUNNING && counts.proving));
		json_object_set_new(json, "verified", proof_json(work));
		json_object_set_new(json, "n_hindrances", json_integer(work->n_hindrances));
		json_object_set_new(json, "hindrances", hindrances_json(work));
	}
	(void)pthread_mutex_unlock(&work->lock);
	return json;
}

int cmek_reencrypt_percent(struct cmek_reencrypt *work)
{
	const struct cmek_reencrypt_counts *counts;
	int percent = -1;

	if (!work)
		return -1;
	counts = &work->counts;
	(void)pthread_mutex_lock(&work->lock);
	if (work->state == RUNNING)
		percent = counts->bytes_done >= counts->bytes_total ? counts->pass > 0 ? 100 : 0 :
			  (int)((double)counts->bytes_done * 100 / (double)counts->bytes_total);
	(void)pthread_mutex_unlock(&work->lock);
	return percent;
}
