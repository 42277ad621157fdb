/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Locking and unlocking a mount, and turning it read-only and back, step by step, in a thread that serves no requests. It
 * must not know why: the watch and the operator do.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "fs/mount/daemon_impl.h"

/* Each invalidation of a node makes the kernel write back what it has. The second one is for writes that had asked for the
 * attributes before the first one took these away, and got into the cache behind it. */
#define PASSES 2
/* In these states the kernel is told attributes and pages. */
#define WHILE_SERVED (CMEK_GATE_WHILE(CMEK_GATE_OPEN) | CMEK_GATE_WHILE(CMEK_GATE_READ_ONLY))
/* How much later than it should have ended a lock is said to be late: until then it says so itself, if it can. */
#define OVERDUE_S 1
/* How long idle threads may take to clear their buffers. */
#define FORGET_MS 10000

const char *cmek_lock_state_name(enum cmek_lock_state state)
{
	static const char *const names[CMEK_LOCK_STATES] = { "unlocked", "draining", "locked", "shredded" };

	return names[state];
}

enum cmek_lock_state cmek_daemon_lock_state(struct daemon *d)
{
	enum cmek_lock_state state;

	(void)pthread_mutex_lock(&d->state_lock);
	state = d->lock_state;
	(void)pthread_mutex_unlock(&d->state_lock);
	return state;
}

static unsigned left_ms(uint64_t until_ms)
{
	uint64_t now = cmek_now_ms();

	return now < until_ms ? (unsigned)(until_ms - now) : 0;
}

static void set_state(struct daemon *d, enum cmek_lock_state state, const char *reason)
{
	(void)pthread_mutex_lock(&d->state_lock);
	d->lock_state = state;
	d->lock_since = (int64_t)time(NULL);
	(void)snprintf(d->lock_reason, sizeof(d->lock_reason), "%s", reason);
	(void)pthread_mutex_unlock(&d->state_lock);
	cmek_daemon_tell_state(d);
}

static void set_reason(struct daemon *d, const char *reason)
{
	(void)pthread_mutex_lock(&d->state_lock);
	(void)snprintf(d->lock_reason, sizeof(d->lock_reason), "%s", reason);
	(void)pthread_mutex_unlock(&d->state_lock);
}

static void set_refuses_writes(struct daemon *d, const char *reason)
{
	(void)pthread_mutex_lock(&d->state_lock);
	(void)snprintf(d->refuses_writes, sizeof(d->refuses_writes), "%s", reason);
	(void)pthread_mutex_unlock(&d->state_lock);
	cmek_daemon_tell_state(d);
}

/* False: the time was up before the kernel had given back everything. */
static bool invalidate_all(struct daemon *d, uint64_t until_ms)
{
	uint64_t index, node;
	int pass;

	for (pass = 0; pass < PASSES; pass++) {
		index = 0;
		while ((node = cmek_tree_next_node(d->tree, &index)) != 0) {
			if (left_ms(until_ms) == 0)
				return false;
			(void)cmek_session_invalidate(d->session, node); /* the kernel may have forgotten it meanwhile */
		}
	}
	return true;
}

/* Draining; true when no request is at work any more and no new one that needs a key will come. */
static bool drain(struct daemon *d, uint64_t until_ms)
{
	struct cmek_gate *gate = cmek_session_gate(d->session);

	cmek_gate_set(gate, CMEK_GATE_DRAINING);
	/* What was let in before may still tell the kernel attributes and pages, which have to be taken back, too. */
	if (!cmek_gate_wait(gate, WHILE_SERVED, left_ms(until_ms)))
		return false;
	cmek_session_settle(d->session);
	/* What the kernel has not written back yet would be refused from here on, and lost. */
	if (!invalidate_all(d, until_ms))
		return false;
	cmek_gate_set(gate, CMEK_GATE_LOCKED);
	return cmek_gate_wait(gate, CMEK_GATE_WHILE_ANY, left_ms(until_ms));
}

/*
 * What locking waits for in the end has no deadline: the kernel that gives back what it has, and the store that takes it. So
 * there is somebody to say that it takes longer than it may.
 */
struct overdue {
	const struct daemon *d;
	const char *reason;
	unsigned timeout_s;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done; /* under lock */
};

static void *overdue_main(void *arg)
{
	struct overdue *overdue = arg;
	struct cmek_error err = CMEK_ERROR_INIT;
	struct timespec until;
	int rc = 0;

	(void)clock_gettime(CLOCK_MONOTONIC, &until); /* can't fail */
	until.tv_sec += (time_t)overdue->timeout_s + OVERDUE_S;
	(void)pthread_mutex_lock(&overdue->lock);
	while (!overdue->done && rc == 0)
		rc = pthread_cond_timedwait(&overdue->cond, &overdue->lock, &until);
	rc = overdue->done ? 0 : ETIMEDOUT;
	(void)pthread_mutex_unlock(&overdue->lock);
	if (rc == 0)
		return NULL;
	(void)cmek_error_set(&err, CMEK_E_BUSY, ETIMEDOUT, "what was written before is not in the store after %u s (does it "
			     "answer?): users are refused, the keys are still in memory", overdue->timeout_s);
	cmek_log(CMEK_LOG_ERROR, "locking goes on: %s", err.text);
	cmek_event_tell(overdue->d, CMEK_EVENT_LOCKED, overdue->reason, &err);
	return NULL;
}

static void overdue_start(struct overdue *overdue)
{
	pthread_condattr_t attr;

	(void)pthread_mutex_init(&overdue->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&overdue->cond, &attr);
	(void)pthread_condattr_destroy(&attr);
	/* Without it nobody says so. */
	overdue->started = pthread_create(&overdue->thread, NULL, overdue_main, overdue) == 0;
}

static void overdue_end(struct overdue *overdue)
{
	(void)pthread_mutex_lock(&overdue->lock);
	overdue->done = true;
	(void)pthread_cond_broadcast(&overdue->cond);
	(void)pthread_mutex_unlock(&overdue->lock);
	if (overdue->started)
		(void)pthread_join(overdue->thread, NULL);
	(void)pthread_cond_destroy(&overdue->cond);
	(void)pthread_mutex_destroy(&overdue->lock);
}

static int lock_in_time(struct daemon *d, const char *reason, unsigned timeout_s, struct cmek_error *err)
{
	uint64_t until_ms = cmek_now_ms() + (uint64_t)timeout_s * 1000;
	int rc;

	if (d->lock_state == CMEK_UNLOCKED) {
		cmek_log(CMEK_LOG_NOTICE, "locking the volume: %s", reason);
		set_state(d, CMEK_DRAINING, reason);
	}
	if (!drain(d, until_ms))
		return cmek_error_set(err, CMEK_E_BUSY, ETIMEDOUT,
				      "requests have not come to an end in %u s (does the store answer?): users are refused, the "
				      "keys are still in memory", timeout_s);
	cmek_reencrypt_hold(d->reencrypt);
	rc = cmek_content_suspend(d->content);
	if (rc != 0)
		cmek_log(CMEK_LOG_ERROR, "locking: not all changes could be written to the store (%s); they are lost if the "
			 "mount ends before it is unlocked", strerror(-rc));
	/* The header's handle has wrapped keys only; the ring has all others. */
	(void)pthread_mutex_lock(&d->header_lock);
	cmek_keyring_wipe(d->ring);
	(void)pthread_mutex_unlock(&d->header_lock);
	if (!cmek_session_forget(d->session, FORGET_MS))
		cmek_log(CMEK_LOG_ERROR, "locking: a thread did not clear its buffers, which may have contents of files");
	set_state(d, CMEK_LOCKED, reason);
	cmek_log(CMEK_LOG_NOTICE, "the volume is locked: %s", reason);
	return 0;
}

static int lock_now(struct daemon *d, const char *reason, unsigned timeout_s, struct cmek_error *err)
{
	struct overdue overdue = { .d = d, .reason = reason, .timeout_s = timeout_s };
	int rc;

	overdue_start(&overdue);
	rc = lock_in_time(d, reason, timeout_s, err);
	overdue_end(&overdue);
	return rc;
}

/* done: there was nothing to do. */
static void tell_end(const struct daemon *d, bool done, enum cmek_mount_event_type type, const char *reason, int rc,
		     const struct cmek_error *err)
{
	if (!done)
		cmek_event_tell(d, type, reason, rc != 0 ? err : NULL);
}

static int ending(struct cmek_error *err)
{
	return cmek_error_set(err, CMEK_E_BUSY, ESHUTDOWN, "the mount is ending");
}

int cmek_daemon_lock(struct daemon *d, const char *reason, unsigned timeout_s, struct cmek_error *err)
{
	bool done;
	int rc = 0;

	(void)pthread_mutex_lock(&d->life_lock);
	done = d->lock_state >= CMEK_LOCKED || atomic_load(&d->ending);
	if (atomic_load(&d->ending))
		rc = ending(err);
	else if (!done)
		rc = lock_now(d, reason, timeout_s, err);
	else if (d->lock_state == CMEK_LOCKED)
		set_reason(d, reason);
	tell_end(d, done, CMEK_EVENT_LOCKED, reason, rc, err);
	(void)pthread_mutex_unlock(&d->life_lock);
	return rc;
}

int cmek_daemon_shred(struct daemon *d, unsigned timeout_s, struct cmek_error *err)
{
	static const char reason[] = "the volume is being shredded";
	bool done;
	int rc = 0;

	(void)pthread_mutex_lock(&d->life_lock);
	done = d->lock_state == CMEK_SHREDDED || atomic_load(&d->ending);
	if (atomic_load(&d->ending))
		rc = ending(err);
	else if (d->lock_state < CMEK_LOCKED)
		rc = lock_now(d, reason, timeout_s, err);
	if (rc == 0 && !done)
		set_state(d, CMEK_SHREDDED, reason);
	tell_end(d, done, CMEK_EVENT_LOCKED, reason, rc, err);
	(void)pthread_mutex_unlock(&d->life_lock);
	return rc;
}

/* The header as it is in the store now. Our lock keeps others out, but the store may have been put back to an older state. */
int cmek_daemon_read_header(struct daemon *d, struct cmek_volhdr_store **ret_header, struct cmek_error *err)
{
	const struct cmek_volhdr *now, *then;
	struct cmek_volhdr_store *header = NULL;
	int fd = cmek_tree_open_store(d->tree, CMEK_NODE_ROOT, O_RDONLY | O_DIRECTORY), rc;

	if (fd < 0)
		return cmek_error_sys(err, -fd, "%s", d->opts->store);
	rc = cmek_volhdr_store_open(fd, CMEK_STORE_PEEK, NULL, &header, err);
	(void)close(fd); /* a directory */
	if (rc != 0)
		return rc;
	now = cmek_volhdr_store_header(header);
	(void)pthread_mutex_lock(&d->header_lock);
	then = cmek_volhdr_store_header(d->header);
	if (memcmp(now->uuid, then->uuid, sizeof(now->uuid)) != 0)
		rc = cmek_error_set(err, CMEK_E_MISMATCH, ESTALE, "%s: another volume's header is there now", d->opts->store);
	else if (now->sequence < d->header_seen)
		rc = cmek_error_set(err, CMEK_E_MISMATCH, ESTALE,
				    "%s: the header has number %" PRIu64 ", it had %" PRIu64 ": it was put back to an older one",
				    d->opts->store, now->sequence, d->header_seen);
	(void)pthread_mutex_unlock(&d->header_lock);
	if (rc != 0)
		cmek_volhdr_store_close(header);
	else
		*ret_header = header;
	return rc;
}

/* Header and keys as the store and the KMS have them now. */
static int open_anew(struct daemon *d, struct cmek_volhdr_store **ret_header, struct cmek_keyring **ret_ring,
		     struct cmek_error *err)
{
	int rc = cmek_daemon_read_header(d, ret_header, err);

	return rc == 0 ? cmek_daemon_open_keys(d, *ret_header, ret_ring, err) : rc;
}

static void renew(struct daemon *d)
{
	int fd = cmek_tree_open_store(d->tree, CMEK_NODE_ROOT, O_RDONLY | O_DIRECTORY);

	if (fd < 0)
		return; /* the next unlock gets it anew */
	cmek_daemon_renew(d, fd);
	(void)close(fd); /* a directory */
}

static int unlock_now(struct daemon *d, struct cmek_error *err)
{
	struct cmek_volhdr_store *header = NULL;
	struct cmek_keyring *fresh = NULL;
	uint64_t sequence = 0;
	int rc = open_anew(d, &header, &fresh, err);

	if (rc == 0)
		sequence = cmek_volhdr_store_header(header)->sequence;
	cmek_volhdr_store_close(header);
	if (rc != 0)
		return rc;
	(void)pthread_mutex_lock(&d->header_lock);
	d->header_seen = sequence;
	cmek_keyring_refill(d->ring, &fresh);
	(void)pthread_mutex_unlock(&d->header_lock);
	renew(d);
	rc = cmek_content_resume(d->content);
	if (rc != 0)
		cmek_log(CMEK_LOG_ERROR, "unlocking: the journal can't be written (%s): every fsync will fail, mount it anew",
			 strerror(-rc));
	set_refuses_writes(d, "");
	cmek_gate_set(cmek_session_gate(d->session), CMEK_GATE_OPEN);
	set_state(d, CMEK_UNLOCKED, "");
	cmek_reencrypt_release(d->reencrypt);
	cmek_log(CMEK_LOG_NOTICE, "the volume is unlocked");
	return 0;
}

/* Nothing was wiped: it goes on as if it had not begun, if the KMS would still give the keys. */
static int undrain(struct daemon *d, struct cmek_error *err)
{
	struct cmek_volhdr_store *header = NULL;
	struct cmek_keyring *fresh = NULL;
	int rc = open_anew(d, &header, &fresh, err);

	cmek_keyring_free(fresh);
	cmek_volhdr_store_close(header);
	if (rc != 0)
		return rc;
	set_refuses_writes(d, "");
	cmek_gate_set(cmek_session_gate(d->session), CMEK_GATE_OPEN);
	set_state(d, CMEK_UNLOCKED, "");
	cmek_reencrypt_release(d->reencrypt);
	cmek_log(CMEK_LOG_NOTICE, "the volume is unlocked: locking it had not come to an end");
	return 0;
}

int cmek_daemon_unlock(struct daemon *d, struct cmek_error *err)
{
	bool done;
	int rc = 0;

	(void)pthread_mutex_lock(&d->life_lock);
	done = d->lock_state == CMEK_UNLOCKED || atomic_load(&d->ending);
	if (atomic_load(&d->ending))
		rc = ending(err);
	else if (d->lock_state == CMEK_SHREDDED)
		rc = cmek_error_set(err, CMEK_E_KEY_DESTROYED, EIDRM,
				    "the volume is being shredded, or was: this mount can only be unmounted");
	else if (d->lock_state == CMEK_LOCKED)
		rc = unlock_now(d, err);
	else if (!done)
		rc = undrain(d, err);
	tell_end(d, done, CMEK_EVENT_UNLOCKED, "", rc, err);
	(void)pthread_mutex_unlock(&d->life_lock);
	return rc;
}

/* ---- read-only and back ---- */

/* What the kernel has is written back while new writes are refused, and then everything goes to the store. */
static int refuse_now(struct daemon *d, const char *reason, unsigned timeout_s, struct cmek_error *err)
{
	uint64_t until_ms = cmek_now_ms() + (uint64_t)timeout_s * 1000;
	struct cmek_gate *gate = cmek_session_gate(d->session);
	int rc;

	cmek_gate_set(gate, CMEK_GATE_READ_ONLY);
	/*
	 * From here on the kernel has to ask before a write, since it has no attributes any more. One that had asked before may
	 * get into its cache still; it is written back as all else is.
	 */
	if (!cmek_gate_wait(gate, CMEK_GATE_WHILE(CMEK_GATE_OPEN), left_ms(until_ms)) || !invalidate_all(d, until_ms))
		return cmek_error_set(err, CMEK_E_BUSY, ETIMEDOUT,
				      "requests have not come to an end in %u s (does the store answer?): changes are refused, "
				      "those before may not be in the store yet", timeout_s);
	cmek_reencrypt_hold(d->reencrypt);
	rc = cmek_content_commit_all(d->content);
	if (rc == 0)
		rc = cmek_tree_syncfs(d->tree);
	if (rc != 0)
		cmek_log(CMEK_LOG_ERROR, "read-only: not all changes could be written to the store (%s); it goes on trying",
			 strerror(-rc));
	set_refuses_writes(d, reason);
	cmek_log(CMEK_LOG_NOTICE, "the volume is read-only: %s", reason);
	cmek_event_tell(d, CMEK_EVENT_READ_ONLY, reason, NULL);
	return 0;
}

int cmek_daemon_refuse_writes(struct daemon *d, const char *reason, unsigned timeout_s, struct cmek_error *err)
{
	int rc = 0;

	(void)pthread_mutex_lock(&d->life_lock);
	if (atomic_load(&d->ending))
		rc = ending(err);
	else if (!d->read_only && d->lock_state == CMEK_UNLOCKED && !*d->refuses_writes)
		rc = refuse_now(d, reason, timeout_s, err);
	(void)pthread_mutex_unlock(&d->life_lock);
	return rc;
}

void cmek_daemon_allow_writes(struct daemon *d)
{
	struct cmek_gate *gate = cmek_session_gate(d->session);

	(void)pthread_mutex_lock(&d->life_lock);
	/* Also when it was not finished. */
	if (!atomic_load(&d->ending) && d->lock_state == CMEK_UNLOCKED && cmek_gate_state(gate) == CMEK_GATE_READ_ONLY) {
		set_refuses_writes(d, "");
		cmek_gate_set(gate, CMEK_GATE_OPEN);
		cmek_reencrypt_release(d->reencrypt);
		cmek_log(CMEK_LOG_NOTICE, "the volume can be written again");
		cmek_event_tell(d, CMEK_EVENT_READ_WRITE, "", NULL);
	}
	(void)pthread_mutex_unlock(&d->life_lock);
}

/* ---- new keys ---- */

static int reload_now(struct daemon *d, uint16_t *ret_dek, struct cmek_error *err)
{
	struct cmek_volhdr_store *header = NULL;
	struct cmek_keyring *fresh = NULL;
	int rc = open_anew(d, &header, &fresh, err);

	if (rc == 0) {
		(void)pthread_mutex_lock(&d->header_lock);
		rc = cmek_keyring_adopt(d->ring, &fresh, err);
		if (rc == 0) {
			d->header_seen = cmek_volhdr_store_header(header)->sequence;
			(void)cmek_volhdr_store_reload(d->header, NULL); /* for the status alone */
		}
		(void)pthread_mutex_unlock(&d->header_lock);
	}
	cmek_keyring_free(fresh);
	cmek_volhdr_store_close(header);
	if (rc != 0)
		return rc;
	*ret_dek = cmek_keyring_active_dek(d->ring);
	cmek_log(CMEK_LOG_NOTICE, "the header has new keys: data key %u is active", *ret_dek);
	return 0;
}

int cmek_daemon_reload_keys(struct daemon *d, uint16_t *ret_dek, struct cmek_error *err)
{
	int rc = 0;

	*ret_dek = 0;
	(void)pthread_mutex_lock(&d->life_lock);
	if (atomic_load(&d->ending))
		rc = ending(err);
	else if (d->lock_state == CMEK_UNLOCKED)
		rc = reload_now(d, ret_dek, err);
	(void)pthread_mutex_unlock(&d->life_lock);
	return rc;
}
