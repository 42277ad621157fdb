/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The thread of the key watch: asks the KMS agent about every slot that could open the volume, and does what the state
 * machine (watch.h) says. It must not know key services. No request of users ever waits for it.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/log.h"
#include "base/text.h"
#include "fs/mount/agent.h"
#include "fs/mount/daemon_impl.h"
#include "fs/mount/message.h"

/* A description can be had of a key that does not unwrap, so each so many questions are a trial. */
#define TRIAL_EVERY 10
/* A slot that could not be wrapped anew is tried again after this. */
#define REWRAP_RETRY_MS UINT64_C(600000)

struct slot_view {
	unsigned id;
	char key[CMEK_SLOT_TEXT_MAX + 1];
	enum cmek_watch_state state;
	char version[512]; /* the key's newest, if it is newer than the slot's; "" = no, or unknown */
	char own_version[512]; /* the slot's */
	enum cmek_kms_state own_state; /* and its state */
	char problem[CMEK_ERROR_TEXT_MAX]; /* "" = none */
};

struct cmek_watcher {
	struct daemon *d;
	pthread_t thread;
	unsigned round;
	bool told_unmount;
	uint64_t rewrap_after_ms[CMEK_SLOTS_MAX]; /* by a slot's number: not again before */
	/* lock: the rest. Short */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool stopping, locked_by_us;
	bool unlocking; /* the decision is made */
	bool ask_now; /* the policy has changed */
	struct cmek_watch watch;
	int64_t since, good; /* Unix seconds */
	struct slot_view slots[CMEK_SLOTS_MAX];
	size_t n_slots;
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	/* A machine that sleeps does not stop the clock of who revokes. */
	(void)clock_gettime(CLOCK_BOOTTIME, &ts); /* can't fail */
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- asking ---- */

static const enum cmek_watch_state state_of_key[] = {
	[CMEK_KMS_ENABLED] = CMEK_WATCH_HEALTHY,
	[CMEK_KMS_DISABLED] = CMEK_WATCH_DISABLED,
	[CMEK_KMS_PENDING_DELETION] = CMEK_WATCH_PENDING_DELETION,
	[CMEK_KMS_DESTROYED] = CMEK_WATCH_DESTROYED,
};

struct poll {
	struct cmek_watcher *w;
	bool trial; /* whatever the descriptions say */
	bool rewrap; /* slots that can be wrapped under a newer version */
	/* Those that were: what they are now, and what they were made from. */
	struct cmek_slot renewed[CMEK_SLOTS_MAX], from[CMEK_SLOTS_MAX];
	size_t n_renewed;
	struct slot_view slots[CMEK_SLOTS_MAX];
	size_t n_slots;
};

static void try_unwrap(struct daemon *d, const uint8_t volume[16], const struct cmek_slot *slot, struct slot_view *view,
		       bool is_described)
{
	struct cmek_agent_link link = { .sock = d->agent, .counts = &d->kms_counts, .called = cmek_event_watch_call,
					.arg = d };
	struct cmek_unwrapper unwrapper = cmek_agent_unwrapper(&link);
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_secret *kek = NULL;
	int rc = unwrapper.unwrap(unwrapper.arg, volume, slot, &kek, &err);

	cmek_secret_free(kek);
	/* A passphrase that nobody can be asked for any more says nothing of the key. */
	if (rc == -ENOTTY && is_described)
		return;
	view->state = rc == 0 ? CMEK_WATCH_HEALTHY : cmek_watch_state_of(err.kind);
	(void)snprintf(view->problem, sizeof(view->problem), "%s", rc == 0 ? "" : err.text);
}

/* The version that the header needs is on its way out. */
static bool is_at_risk(const struct slot_view *view)
{
	return view->own_state == CMEK_KMS_DISABLED || view->own_state == CMEK_KMS_PENDING_DELETION ||
	       view->own_state == CMEK_KMS_DESTROYED;
}

static int copy_slot(const struct cmek_slot *slot, struct cmek_slot *ret_copy, struct cmek_error *err)
{
	char *text = NULL;
	size_t len = 0;
	int rc = cmek_slot_encode(slot, &text, &len, err);

	if (rc == 0)
		rc = cmek_slot_decode(text, len, ret_copy, err);
	free(text);
	return rc;
}

/* Has the agent wrap the slot under the key's newest version; what comes of it is kept for put_slots(). */
static void rewrap_slot(struct poll *poll, const uint8_t volume[16], const struct cmek_slot *slot)
{
	struct cmek_agent_link link = { .sock = poll->w->d->agent, .counts = &poll->w->d->kms_counts,
					.called = cmek_event_kms_call, .arg = poll->w->d };
	struct cmek_slot *from = poll->from + poll->n_renewed;
	struct cmek_error err = CMEK_ERROR_INIT;
	int rc = copy_slot(slot, from, &err);

	if (rc == 0)
		rc = cmek_agent_rewrap(&link, volume, slot, poll->renewed + poll->n_renewed, &err);
	if (rc == 0 && strcmp(poll->renewed[poll->n_renewed].version, from->version) == 0) {
		cmek_slot_done(poll->renewed + poll->n_renewed);
		memset(poll->renewed + poll->n_renewed, 0, sizeof(poll->renewed[0]));
		rc = cmek_error_set(&err, CMEK_E_MISMATCH, EAGAIN, "the service does not wrap under the newer one");
	}
	if (rc == 0) {
		poll->n_renewed++;
		return;
	}
	cmek_slot_done(from);
	memset(from, 0, sizeof(*from));
	poll->w->rewrap_after_ms[slot->id] = now_ms() + REWRAP_RETRY_MS;
	cmek_log(CMEK_LOG_WARNING, "key watch: slot %u stays under version %s of its key: %s", slot->id, slot->version, err.text);
}

static void ask_slot(struct poll *poll, const uint8_t volume[16], const struct cmek_slot *slot, struct slot_view *view)
{
	struct cmek_agent_link link = { .sock = poll->w->d->agent, .counts = &poll->w->d->kms_counts,
					.called = cmek_event_watch_call, .arg = poll->w->d };
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_agent_key key;
	bool described;
	int rc = cmek_agent_describe(&link, volume, slot, &key, &err);

	described = rc == 0 && key.state != CMEK_KMS_STATE_UNKNOWN;
	if (described) {
		view->state = state_of_key[key.state];
		(void)snprintf(view->version, sizeof(view->version), "%s", key.primary_version);
		view->own_state = key.version_state;
		if (view->state != CMEK_WATCH_HEALTHY)
			(void)snprintf(view->problem, sizeof(view->problem), "the key is %s", cmek_kms_state_name(key.state));
	} else if (rc != 0 && !cmek_watch_unwrap_tells(err.kind)) {
		view->state = cmek_watch_state_of(err.kind);
		(void)snprintf(view->problem, sizeof(view->problem), "%s", err.text);
		return;
	}
	/* Nor does a key that is enabled say that the version is which the slot needs. */
	if (!described || (view->state == CMEK_WATCH_HEALTHY && (poll->trial || is_at_risk(view))))
		try_unwrap(poll->w->d, volume, slot, view, described);
}

/*
 * In the place of who unwraps at an unlock, so that just those slots are asked about that an unlock would try. It always
 * fails, for the next slot to be tried.
 */
static int look_instead(void *arg, const uint8_t volume[16], const struct cmek_slot *slot, struct cmek_secret **ret_kek,
			struct cmek_error *err)
{
	struct poll *poll = arg;
	struct slot_view *view;

	(void)ret_kek;
	if (poll->n_slots < CMEK_SLOTS_MAX) {
		view = poll->slots + poll->n_slots++;
		memset(view, 0, sizeof(*view));
		view->id = slot->id;
		(void)snprintf(view->key, sizeof(view->key), "%s", slot->resolved);
		ask_slot(poll, volume, slot, view);
		if (*view->version && *slot->version && strcmp(view->version, slot->version) == 0)
			view->version[0] = '\0'; /* it is what the slot has */
		(void)snprintf(view->own_version, sizeof(view->own_version), "%s", slot->version);
		if (poll->rewrap && *view->version && *slot->version && view->state == CMEK_WATCH_HEALTHY &&
		    now_ms() >= poll->w->rewrap_after_ms[slot->id])
			rewrap_slot(poll, volume, slot);
	}
	return cmek_error_set(err, CMEK_E_UNREACHABLE, ECANCELED, "only looked at");
}

/* False: there was nobody to ask. */
static bool ask_all(struct poll *poll, struct cmek_error *err)
{
	struct cmek_unwrapper unwrapper = { .arg = poll, .unwrap = look_instead };
	struct cmek_report silent = { NULL, NULL };
	struct cmek_volhdr_store *header = NULL;
	struct cmek_keyring *ring = NULL;
	int rc = cmek_daemon_read_header(poll->w->d, &header, err);

	if (rc == 0)
		(void)cmek_daemon_try_slots(poll->w->d, header, &unwrapper, silent, &ring, err); /* fails, by design */
	cmek_volhdr_store_close(header);
	return poll->n_slots > 0;
}

/* ---- acting ---- */

static void tell_slot(const struct daemon *d, enum cmek_mount_event_type type, const struct slot_view *view)
{
	struct cmek_mount_event event;

	cmek_event_init(d, type, &event);
	event.slot = (int32_t)view->id;
	(void)snprintf(event.key, sizeof(event.key), "%s", view->key);
	if (type == CMEK_EVENT_KEY_VERSION)
		(void)snprintf(event.version, sizeof(event.version), "%s", view->version);
	else if (type == CMEK_EVENT_VERSION_STATE)
		(void)snprintf(event.version, sizeof(event.version), "%s", view->own_version);
	if (type == CMEK_EVENT_VERSION_STATE)
		(void)snprintf(event.state, sizeof(event.state), "%s", cmek_kms_state_name(view->own_state));
	else if (type != CMEK_EVENT_KEY_VERSION)
		(void)snprintf(event.state, sizeof(event.state), "%s", cmek_watch_state_name(view->state));
	cmek_auditor_tell(d->audit, &event);
}

static void tell_change(const struct daemon *d, enum cmek_watch_state before, enum cmek_watch_state now)
{
	struct cmek_mount_event event;

	cmek_event_init(d, CMEK_EVENT_WATCH, &event);
	(void)snprintf(event.was, sizeof(event.was), "%s", cmek_watch_state_name(before));
	(void)snprintf(event.state, sizeof(event.state), "%s", cmek_watch_state_name(now));
	cmek_auditor_tell(d->audit, &event);
}

static void say_change(const struct cmek_watcher *w, enum cmek_watch_state before, const struct poll *poll)
{
	const struct cmek_watch *watch = &w->watch;
	enum cmek_watch_action action = cmek_watch_intent(watch);
	size_t i;

	cmek_log(watch->state == CMEK_WATCH_HEALTHY ? CMEK_LOG_NOTICE : CMEK_LOG_WARNING,
		 "key watch: %s, it was %s%s%s", cmek_watch_state_name(watch->state), cmek_watch_state_name(before),
		 action == CMEK_WATCH_IGNORE ? "" : "; after its grace the policy is to ",
		 action == CMEK_WATCH_IGNORE ? "" : cmek_watch_action_name(action));
	tell_change(w->d, before, watch->state);
	for (i = 0; i < poll->n_slots; i++) {
		if (*poll->slots[i].problem)
			cmek_log(CMEK_LOG_WARNING, "key watch: slot %u: %s", poll->slots[i].id, poll->slots[i].problem);
		if (poll->slots[i].state != CMEK_WATCH_HEALTHY)
			tell_slot(w->d, CMEK_EVENT_KEY_STATE, poll->slots + i);
	}
}

/* A newer version of a key than the slot was wrapped under: said once. */
static void say_rotations(const struct cmek_watcher *w, const struct poll *poll)
{
	size_t i, k;

	for (i = 0; i < poll->n_slots; i++) {
		if (!*poll->slots[i].version)
			continue;
		for (k = 0; k < w->n_slots; k++) {
			if (w->slots[k].id == poll->slots[i].id && !strcmp(w->slots[k].version, poll->slots[i].version))
				break;
		}
		if (k < w->n_slots)
			continue;
		cmek_log(CMEK_LOG_NOTICE, "key watch: the key of slot %u has a newer version, %s: 'cmekctl rewrap' takes it up",
			 poll->slots[i].id, poll->slots[i].version);
		tell_slot(w->d, CMEK_EVENT_KEY_VERSION, poll->slots + i);
	}
}

/* The version that a slot needs has changed its state: said once. */
static void say_versions(const struct cmek_watcher *w, const struct poll *poll)
{
	const struct slot_view *view;
	size_t i, k;
	bool was;

	for (i = 0; i < poll->n_slots; i++) {
		view = poll->slots + i;
		was = false;
		for (k = 0; k < w->n_slots; k++) {
			if (w->slots[k].id == view->id && w->slots[k].own_state == view->own_state &&
			    strcmp(w->slots[k].own_version, view->own_version) == 0)
				was = true;
		}
		if (was || !is_at_risk(view))
			continue;
		cmek_log(CMEK_LOG_WARNING, "key watch: version %s of the key of slot %u, which the header needs, is %s: 'cmekctl "
			 "rewrap' takes up the newest one, as long as this one opens the volume", view->own_version, view->id,
			 cmek_kms_state_name(view->own_state));
		tell_slot(w->d, CMEK_EVENT_VERSION_STATE, view);
	}
}

/* What the agent has wrapped anew, into the header. */
static void put_slots(struct cmek_watcher *w, struct poll *poll)
{
	struct daemon *d = w->d;
	struct cmek_error err = CMEK_ERROR_INIT;
	int fd = -1, rc;
	size_t i;

	if (poll->n_renewed > 0)
		fd = cmek_tree_open_store(d->tree, CMEK_NODE_ROOT, O_RDONLY | O_DIRECTORY);
	for (i = 0; i < poll->n_renewed; i++) {
		cmek_error_clear(&err);
		(void)pthread_mutex_lock(&d->life_lock);
		if (fd < 0)
			rc = cmek_error_sys(&err, -fd, "%s", d->opts->store);
		else
			rc = cmek_daemon_put_slot(d, fd, poll->renewed + i, poll->from + i, &err);
		(void)pthread_mutex_unlock(&d->life_lock);
		if (rc != 0) {
			w->rewrap_after_ms[poll->from[i].id] = now_ms() + REWRAP_RETRY_MS;
			cmek_log(CMEK_LOG_WARNING, "key watch: slot %u stays under version %s of its key: %s", poll->from[i].id,
				 poll->from[i].version, err.text);
		}
		cmek_slot_done(poll->renewed + i);
		cmek_slot_done(poll->from + i);
	}
	if (fd >= 0)
		(void)close(fd); /* a directory */
}

static enum cmek_watch_state best_of(const struct poll *poll)
{
	enum cmek_watch_state best = CMEK_WATCH_DESTROYED;
	size_t i;

	for (i = 0; i < poll->n_slots; i++)
		best = poll->slots[i].state < best ? poll->slots[i].state : best;
	return best;
}

static void take_answers(struct cmek_watcher *w, const struct poll *poll)
{
	enum cmek_watch_state before, now = best_of(poll);
	bool changed;

	(void)pthread_mutex_lock(&w->lock);
	before = w->watch.state;
	changed = cmek_watch_answer(&w->watch, now, now_ms());
	if (changed)
		w->since = (int64_t)time(NULL);
	if (now == CMEK_WATCH_HEALTHY)
		w->good = (int64_t)time(NULL);
	if (changed)
		say_change(w, before, poll);
	say_rotations(w, poll);
	say_versions(w, poll);
	memcpy(w->slots, poll->slots, sizeof(w->slots));
	w->n_slots = poll->n_slots;
	(void)pthread_mutex_unlock(&w->lock);
}

static void lock_it(struct cmek_watcher *w, const char *state)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	char reason[64];

	if (cmek_daemon_lock_state(w->d) >= CMEK_LOCKED)
		return;
	(void)snprintf(reason, sizeof(reason), "key watch: %s", state);
	(void)pthread_mutex_lock(&w->lock);
	w->locked_by_us = true;
	(void)pthread_mutex_unlock(&w->lock);
	if (cmek_daemon_lock(w->d, reason, CMEK_LOCK_TIMEOUT_S, &err) != 0)
		cmek_log(CMEK_LOG_ERROR, "key watch: locking: %s", err.text);
}

static void refuse_writes(struct cmek_watcher *w, const char *state)
{
	static struct cmek_log_limit limit;
	struct cmek_error err = CMEK_ERROR_INIT;
	char reason[64];

	(void)snprintf(reason, sizeof(reason), "key watch: %s", state);
	if (cmek_daemon_refuse_writes(w->d, reason, CMEK_LOCK_TIMEOUT_S, &err) != 0)
		cmek_log_limited(&limit, CMEK_LOG_ERROR, "key watch: turning read-only: %s", err.text);
}

static void act(struct cmek_watcher *w)
{
	static struct cmek_log_limit limit;
	struct cmek_error err = CMEK_ERROR_INIT;
	enum cmek_watch_action action;
	enum cmek_watch_state state, why;
	bool unlock, write;

	(void)pthread_mutex_lock(&w->lock);
	state = why = w->watch.state;
	action = cmek_watch_due(&w->watch, now_ms(), &why);
	write = state == CMEK_WATCH_HEALTHY || cmek_watch_intent(&w->watch) == CMEK_WATCH_IGNORE;
	unlock = w->unlocking = state == CMEK_WATCH_HEALTHY && w->locked_by_us;
	(void)pthread_mutex_unlock(&w->lock);
	if (action == CMEK_WATCH_READ_ONLY)
		refuse_writes(w, cmek_watch_state_name(why));
	else if (action != CMEK_WATCH_IGNORE)
		lock_it(w, cmek_watch_state_name(why));
	if (action == CMEK_WATCH_UNMOUNT && !w->told_unmount) {
		cmek_log(CMEK_LOG_NOTICE, "key watch: unmounting; who has files open keeps the locked mount until they are closed");
		w->told_unmount = cmek_message_tell(w->d->supervisor, CMEK_MSG_UNMOUNT, NULL) == 0;
	}
	if (write && cmek_gate_state(cmek_session_gate(w->d->session)) == CMEK_GATE_READ_ONLY)
		cmek_daemon_allow_writes(w->d);
	if (!unlock)
		return;
	if (cmek_daemon_unlock(w->d, &err) == 0)
		cmek_watcher_unlocked(w);
	else
		cmek_log_limited(&limit, CMEK_LOG_ERROR, "key watch: unlocking: %s", err.text);
	(void)pthread_mutex_lock(&w->lock);
	w->unlocking = false;
	(void)pthread_cond_broadcast(&w->cond);
	(void)pthread_mutex_unlock(&w->lock);
}

static void poll_once(struct cmek_watcher *w)
{
	static struct cmek_log_limit limit;
	struct cmek_error err = CMEK_ERROR_INIT;
	struct poll *poll;

	if (cmek_daemon_lock_state(w->d) == CMEK_SHREDDED)
		return; /* whatever became of its keys, nothing follows from it any more */
	poll = calloc(1, sizeof(*poll));
	if (!poll)
		return;
	poll->w = w;
	(void)pthread_mutex_lock(&w->lock);
	poll->trial = w->round++ % TRIAL_EVERY == 0 || w->watch.state != CMEK_WATCH_HEALTHY ||
		      w->watch.heard != CMEK_WATCH_HEALTHY;
	poll->rewrap = w->watch.policy.auto_rewrap;
	(void)pthread_mutex_unlock(&w->lock);
	poll->rewrap = poll->rewrap && !w->d->read_only && cmek_daemon_lock_state(w->d) == CMEK_UNLOCKED;
	if (ask_all(poll, &err))
		take_answers(w, poll);
	else
		cmek_log_limited(&limit, CMEK_LOG_WARNING, "key watch: no key slot can be asked about: %s", err.text);
	put_slots(w, poll);
	free(poll);
	act(w);
	cmek_daemon_tell_state(w->d);
}

/* Until the next question; true: the mount ends. */
static bool wait_or_stop(struct cmek_watcher *w)
{
	struct timespec until;
	uint32_t dice;
	uint64_t ms;
	bool stop;

	cmek_random(&dice, sizeof(dice));
	(void)pthread_mutex_lock(&w->lock);
	ms = cmek_watch_wait_ms(&w->watch, now_ms(), dice);
	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(ms / 1000);
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	while (!w->stopping && !w->ask_now && pthread_cond_timedwait(&w->cond, &w->lock, &until) == 0)
		;
	stop = w->stopping;
	w->ask_now = false;
	(void)pthread_mutex_unlock(&w->lock);
	return stop;
}

static void *watcher_main(void *arg)
{
	struct cmek_watcher *w = arg;

	while (!wait_or_stop(w))
		poll_once(w);
	return NULL;
}

/* ---- from outside ---- */

void cmek_watcher_unlocked(struct cmek_watcher *w)
{
	struct cmek_watch_policy policy;

	if (!w)
		return;
	(void)pthread_mutex_lock(&w->lock);
	w->locked_by_us = false;
	policy = w->watch.policy;
	cmek_watch_init(&w->watch, &policy, now_ms());
	w->since = w->good = (int64_t)time(NULL);
	(void)pthread_mutex_unlock(&w->lock);
}

void cmek_watcher_give_up_lock(struct cmek_watcher *w)
{
	if (!w)
		return;
	(void)pthread_mutex_lock(&w->lock);
	while (w->unlocking)
		(void)pthread_cond_wait(&w->cond, &w->lock);
	w->locked_by_us = false;
	(void)pthread_mutex_unlock(&w->lock);
}

int cmek_watcher_set(struct cmek_watcher *w, const json_t *settings, json_t **ret_policy, struct cmek_error *err)
{
	struct cmek_watch_policy policy;
	const char *key;
	json_t *value;
	int rc = 0;

	if (!w)
		return cmek_error_set(err, CMEK_E_UNSUPPORTED, EOPNOTSUPP, "this mount does not watch its keys (nowatch)");
	(void)pthread_mutex_lock(&w->lock);
	policy = w->watch.policy;
	/* The cast is jansson's: its iterators are not const. */
	json_object_foreach((json_t *)settings, key, value) {
		if (rc == 0)
			rc = cmek_watch_policy_set(&policy, key, json_string_value(value) ? json_string_value(value) : "", err);
	}
	if (rc == 0 && json_object_size(settings) > 0) {
		w->watch.policy = policy;
		w->ask_now = true;
		(void)pthread_cond_broadcast(&w->cond);
		cmek_log(CMEK_LOG_NOTICE, "key watch: its policy was changed");
	}
	*ret_policy = rc == 0 ? cmek_watch_policy_json(&policy) : NULL;
	(void)pthread_mutex_unlock(&w->lock);
	if (rc == 0 && !*ret_policy)
		rc = cmek_error_sys(err, ENOMEM, "answering");
	return rc;
}

static json_t *time_json(int64_t unix_seconds)
{
	char text[CMEK_TIME_TEXT];

	cmek_time_encode(unix_seconds, text);
	return json_string(text);
}

json_t *cmek_watcher_json(struct cmek_watcher *w)
{
	json_t *slots = json_array(), *json;
	const struct slot_view *view;
	size_t i;

	if (!w) {
		json_decref(slots);
		return json_null();
	}
	(void)pthread_mutex_lock(&w->lock);
	for (i = 0; i < w->n_slots; i++) {
		view = w->slots + i;
		json_array_append_new(slots, json_pack("{s:i, s:s, s:s?, s:s?, s:s?}", "slot", (int)view->id, "state",
						       cmek_watch_state_name(view->state), "newer_version",
						       *view->version ? view->version : NULL, "problem",
						       *view->problem ? view->problem : NULL, "version_state",
						       is_at_risk(view) ? cmek_kms_state_name(view->own_state) : NULL));
	}
	json = json_pack("{s:s, s:o, s:o, s:s, s:b, s:o}", "state", cmek_watch_state_name(w->watch.state), "since",
			 time_json(w->since), "last_good", time_json(w->good), "action",
			 cmek_watch_action_name(cmek_watch_intent(&w->watch)), "locked", w->locked_by_us,
			 "slots", slots);
	(void)pthread_mutex_unlock(&w->lock);
	return json;
}

void cmek_watcher_problem(struct cmek_watcher *w, char *to, size_t size)
{
	size_t i;

	*to = '\0';
	if (!w)
		return;
	(void)pthread_mutex_lock(&w->lock);
	if (w->watch.state != CMEK_WATCH_HEALTHY)
		(void)snprintf(to, size, "degraded: the keys are %s", cmek_watch_state_name(w->watch.state));
	for (i = 0; !*to && i < w->n_slots; i++) {
		if (w->slots[i].state != CMEK_WATCH_HEALTHY)
			(void)snprintf(to, size, "degraded: the key of slot %u is %s", w->slots[i].id,
				       cmek_watch_state_name(w->slots[i].state));
		else if (is_at_risk(w->slots + i))
			(void)snprintf(to, size, "degraded: the version of the key that slot %u needs is %s", w->slots[i].id,
				       cmek_kms_state_name(w->slots[i].own_state));
	}
	(void)pthread_mutex_unlock(&w->lock);
}

int cmek_watcher_start(struct daemon *d, struct cmek_watcher **ret_watcher, struct cmek_error *err)
{
	struct cmek_watcher *w = calloc(1, sizeof(*w));
	pthread_condattr_t attr;
	int rc;

	if (!w)
		return cmek_error_sys(err, ENOMEM, "starting the key watch");
	w->d = d;
	cmek_watch_init(&w->watch, &d->opts->watch, now_ms());
	w->since = w->good = (int64_t)time(NULL);
	(void)pthread_mutex_init(&w->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&w->cond, &attr);
	(void)pthread_condattr_destroy(&attr);
	*ret_watcher = w; /* before there is a thread that may look there */
	rc = pthread_create(&w->thread, NULL, watcher_main, w);
	if (rc != 0) {
		*ret_watcher = NULL;
		(void)pthread_cond_destroy(&w->cond);
		(void)pthread_mutex_destroy(&w->lock);
		free(w);
		return cmek_error_sys(err, rc, "starting the key watch");
	}
	return 0;
}

void cmek_watcher_stop(struct cmek_watcher *w)
{
	if (!w)
		return;
	(void)pthread_mutex_lock(&w->lock);
	w->stopping = true;
	(void)pthread_cond_broadcast(&w->cond);
	(void)pthread_mutex_unlock(&w->lock);
	(void)shutdown(w->d->agent, SHUT_RDWR); /* it may wait for a key service that does not answer */
	(void)pthread_join(w->thread, NULL);
	(void)pthread_cond_destroy(&w->cond);
	(void)pthread_mutex_destroy(&w->lock);
	free(w);
}
