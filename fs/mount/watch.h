/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_MOUNT_WATCH_H
#define CMEK_MOUNT_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "base/err.h"

/*
 * What becomes of a mount when its keys change in their KMS: from answers of the KMS to states, from states to actions.
 * No I/O, no clock, no threads: who asks and who acts is fs/mount/watcher.c. One thread at a time per watch.
 *
 * The states are in the order of how likely they pass by themselves; a volume with several slots is in the first state
 * that one of them is in.
 */
enum cmek_watch_state {
	CMEK_WATCH_HEALTHY,
	CMEK_WATCH_THROTTLED,
	CMEK_WATCH_UNREACHABLE,
	CMEK_WATCH_EXPIRED, /* the credentials */
	CMEK_WATCH_DENIED,
	CMEK_WATCH_DISABLED,
	CMEK_WATCH_PENDING_DELETION,
	CMEK_WATCH_DESTROYED,
	CMEK_WATCH_STATES,
};
const char *cmek_watch_state_name(enum cmek_watch_state state); /* "healthy", "pending-deletion", ... */
/* The state that an error of a KMS stands for. kind: not CMEK_E_NONE. */
enum cmek_watch_state cmek_watch_state_of(enum cmek_kind kind);
/*
 * A key could not be described for this reason: whether an unwrap may tell more. Who may unwrap need not be allowed to
 * describe; and of a key that is not found some services say that it was destroyed only to who has something wrapped by it.
 */
bool cmek_watch_unwrap_tells(enum cmek_kind kind);

enum cmek_watch_action { CMEK_WATCH_IGNORE, CMEK_WATCH_READ_ONLY, CMEK_WATCH_LOCK, CMEK_WATCH_UNMOUNT };
const char *cmek_watch_action_name(enum cmek_watch_action action);

struct cmek_watch_policy {
	bool off;
	bool auto_rewrap;     /* a slot whose key has a newer version is wrapped under that */
	uint64_t interval_ms; /* between questions while healthy */
	uint64_t retry_ms;    /* and while not */
	uint64_t grace_ms;    /* from a state to its action, for those that have none of their own */
	struct {
		enum cmek_watch_action action;
		uint64_t grace_ms;
		bool own_grace;
	} on[CMEK_WATCH_STATES];
};

/* 60 s, 10 s, 5 min; lock for denied, disabled, pending-deletion and destroyed, ignore for the others. */
void cmek_watch_policy_init(struct cmek_watch_policy *policy);
/*
 * Sets one key as the configuration and -o spell it: "interval", "retry", "grace" (durations), "on_STATE" ("ignore",
 * "read-only", "lock", "unmount", with a grace of its own: "lock:2h"; hyphens of the state are underscores), "auto_rewrap" ("yes", "no"). Kind usage,
 * -EINVAL.
 */
int cmek_watch_policy_set(struct cmek_watch_policy *policy, const char *key, const char *value, struct cmek_error *err);

/* The policy in words of the configuration: for each key its value, as in "on_denied": "lock:2h". NULL: no memory. */
json_t *cmek_watch_policy_json(const struct cmek_watch_policy *policy);

struct cmek_watch {
	struct cmek_watch_policy policy;
	enum cmek_watch_state state, heard; /* heard: the last answer */
	enum cmek_watch_state heard_of_key; /* the last one that says something of the key, or CMEK_WATCH_STATES: none counts */
	enum cmek_watch_state told;         /* the last state that says something of the key, see cmek_watch_due() */
	uint64_t since_ms;                  /* the state's */
	uint64_t act_ms;                    /* when grace began, see cmek_watch_due() */
	uint64_t good_ms;                   /* the last healthy answer */
	unsigned n_throttled;               /* answers in a row */
};

/* Healthy, as of now: the keys have just been had. */
void cmek_watch_init(struct cmek_watch *watch, const struct cmek_watch_policy *policy, uint64_t now_ms);
/*
 * An answer. A state needs two equal ones, but for destroyed, which nobody takes back; between two that say something of
 * the key there may be others that don't. Two that differ, and are not healthy, make at least a healthy volume (or one of
 * whose keys nothing was said) what both of them are, the first in the order above. So answers that alternate are a state,
 * and don't change it each time; one answer alone is none. True: the state has changed. Grace goes on when a state that is
 * acted on follows another one, also with states between that say nothing of the key.
 */
bool cmek_watch_answer(struct cmek_watch *watch, enum cmek_watch_state state, uint64_t now_ms);
/*
 * What is to be done, once its grace has passed, else CMEK_WATCH_IGNORE. *ret_state (NULL: not wanted): the state that wants it.
 * Throttled, unreachable and expired say nothing of the key, so that what was told of it before is still wanted.
 */
enum cmek_watch_action cmek_watch_due(const struct cmek_watch *watch, uint64_t now_ms, enum cmek_watch_state *ret_state);
/* The same without a grace: what it will come to. */
enum cmek_watch_action cmek_watch_intent(const struct cmek_watch *watch);
/*
 * How long until the next question: the interval, up to a tenth more or less by dice (any number); longer each time while
 * throttled; never beyond the end of a grace.
 */
uint64_t cmek_watch_wait_ms(const struct cmek_watch *watch, uint64_t now_ms, uint32_t dice);

#endif
