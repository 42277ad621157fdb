/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The state machine of the key watch, and its policy as people write it. It must not know how a KMS is asked, nor how
 * a mount is locked.
 */
#include "config.h"

#include "fs/mount/watch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

#define S UINT64_C(1000)
#define DAY (86400 * S)
#define INTERVAL_MS (60 * S)
#define RETRY_MS (10 * S)
#define GRACE_MS (300 * S)
#define INTERVAL_MIN_MS 100
#define INTERVAL_MAX_MS DAY
#define GRACE_MAX_MS (30 * DAY)
/* Throttled, the interval doubles with each answer, up to this much of it. */
#define BACKOFF_MAX 32

static const char *const state_names[CMEK_WATCH_STATES] = {
	[CMEK_WATCH_HEALTHY] = "healthy",
	[CMEK_WATCH_THROTTLED] = "throttled",
	[CMEK_WATCH_UNREACHABLE] = "unreachable",
	[CMEK_WATCH_EXPIRED] = "expired",
	[CMEK_WATCH_DENIED] = "denied",
	[CMEK_WATCH_DISABLED] = "disabled",
	[CMEK_WATCH_PENDING_DELETION] = "pending-deletion",
	[CMEK_WATCH_DESTROYED] = "destroyed",
};
static const char *const action_names[] = { "ignore", "read-only", "lock", "unmount" };

const char *cmek_watch_state_name(enum cmek_watch_state state)
{
	return state_names[state];
}

const char *cmek_watch_action_name(enum cmek_watch_action action)
{
	return action_names[action];
}

enum cmek_watch_state cmek_watch_state_of(enum cmek_kind kind)
{
	switch (kind) {
	case CMEK_E_THROTTLED:
		return CMEK_WATCH_THROTTLED;
	case CMEK_E_EXPIRED:
		return CMEK_WATCH_EXPIRED;
	case CMEK_E_KEY_DISABLED:
		return CMEK_WATCH_DISABLED;
	case CMEK_E_PENDING_DELETION:
		return CMEK_WATCH_PENDING_DELETION;
	case CMEK_E_KEY_DESTROYED:
		return CMEK_WATCH_DESTROYED;
	/* The service answers, and does not give the key. A key that is not found may be hidden, or in another place. */
	case CMEK_E_DENIED:
	case CMEK_E_NOT_FOUND:
	case CMEK_E_MISMATCH:
	case CMEK_E_TAMPERED:
		return CMEK_WATCH_DENIED;
	/* No answer, or none that says anything of the key. */
	default:
		return CMEK_WATCH_UNREACHABLE;
	}
}

bool cmek_watch_unwrap_tells(enum cmek_kind kind)
{
	return kind == CMEK_E_DENIED || kind == CMEK_E_UNSUPPORTED || kind == CMEK_E_NOT_FOUND;
}

void cmek_watch_policy_init(struct cmek_watch_policy *policy)
{
	memset(policy, 0, sizeof(*policy));
	policy->interval_ms = INTERVAL_MS;
	policy->retry_ms = RETRY_MS;
	policy->grace_ms = GRACE_MS;
	policy->on[CMEK_WATCH_DENIED].action = CMEK_WATCH_LOCK;
	policy->on[CMEK_WATCH_DISABLED].action = CMEK_WATCH_LOCK;
	policy->on[CMEK_WATCH_PENDING_DELETION].action = CMEK_WATCH_LOCK;
	policy->on[CMEK_WATCH_DESTROYED].action = CMEK_WATCH_LOCK;
}

static int bad(const char *key, const char *value, const char *expected, struct cmek_error *err)
{
	return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "watch: %s = %s: expected %s", key, value, expected);
}

/* A duration as anywhere, or one in milliseconds. */
static bool parse_ms(const char *value, uint64_t *ret_ms)
{
	size_t len = strlen(value);
	char number[24];

	if (len <= 2 || strcmp(value + len - 2, "ms") != 0)
		return cmek_parse_duration(value, ret_ms) == 0 && !__builtin_mul_overflow(*ret_ms, S, ret_ms);
	if (len - 2 >= sizeof(number))
		return false;
	memcpy(number, value, len - 2);
	number[len - 2] = '\0';
	return cmek_parse_u64(number, UINT64_MAX, ret_ms) == 0;
}

static int set_time(uint64_t *to, uint64_t min_ms, uint64_t max_ms, const char *key, const char *value,
		    struct cmek_error *err)
{
	uint64_t ms;

	if (!parse_ms(value, &ms) || ms < min_ms || ms > max_ms)
		return bad(key, value, "a time, as in 30s, 5m or 2h", err);
	*to = ms;
	return 0;
}

/* state: as in "on_pending_deletion", behind the underscore. */
static int find_state(const char *state)
{
	size_t k;
	int i;

	for (i = CMEK_WATCH_HEALTHY + 1; i < CMEK_WATCH_STATES; i++) {
		for (k = 0; state[k] && (state[k] == '_' ? '-' : state[k]) == state_names[i][k]; k++)
			;
		if (!state[k] && !state_names[i][k])
			return i;
	}
	return -1;
}

static int set_action(struct cmek_watch_policy *policy, int state, const char *key, const char *value,
		      struct cmek_error *err)
{
	static const char expected[] = "ignore, read-only, lock or unmount, with a grace of its own as in lock:2h";
	size_t len = strcspn(value, ":"), i;
	int rc = -EINVAL;

	for (i = 0; i < sizeof(action_names) / sizeof(action_names[0]); i++) {
		if (strlen(action_names[i]) != len || strncmp(action_names[i], value, len) != 0)
			continue;
		policy->on[state].action = (enum cmek_watch_action)i;
		policy->on[state].own_grace = value[len] == ':';
		rc = 0;
	}
	if (rc != 0)
		return bad(key, value, expected, err);
	return value[len] == ':' ? set_time(&policy->on[state].grace_ms, 0, GRACE_MAX_MS, key, value + len + 1, err) : 0;
}

int cmek_watch_policy_set(struct cmek_watch_policy *policy, const char *key, const char *value, struct cmek_error *err)
{
	int state;

	if (!strcmp(key, "interval"))
		return set_time(&policy->interval_ms, INTERVAL_MIN_MS, INTERVAL_MAX_MS, key, value, err);
	if (!strcmp(key, "retry"))
		return set_time(&policy->retry_ms, INTERVAL_MIN_MS, INTERVAL_MAX_MS, key, value, err);
	if (!strcmp(key, "grace"))
		return set_time(&policy->grace_ms, 0, GRACE_MAX_MS, key, value, err);
	if (!strcmp(key, "auto_rewrap")) {
		if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
			return bad(key, value, "yes or no", err);
		policy->auto_rewrap = value[0] == 'y';
		return 0;
	}
	state = strncmp(key, "on_", 3) == 0 ? find_state(key + 3) : -1;
	if (state < 0)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "watch: there is no %s", key);
	return set_action(policy, state, key, value, err);
}

static void put_time(char *to, size_t size, const char *before, uint64_t ms)
{
	static const struct {
		uint64_t ms;
		const char *unit;
	} units[] = { { 3600 * S, "h" }, { 60 * S, "m" }, { S, "s" }, { 1, "ms" } };
	size_t i = ms == 0 ? 2 : 0; /* "0s" */

	while (ms % units[i].ms != 0)
		i++;
	(void)snprintf(to, size, "%s%" PRIu64 "%s", before, ms / units[i].ms, units[i].unit);
}

static void put_action(char *to, size_t size, const struct cmek_watch_policy *policy, int state)
{
	char before[16];

	(void)snprintf(before, sizeof(before), "%s:", action_names[policy->on[state].action]);
	if (policy->on[state].own_grace)
		put_time(to, size, before, policy->on[state].grace_ms);
	else
		(void)snprintf(to, size, "%s", action_names[policy->on[state].action]);
}

json_t *cmek_watch_policy_json(const struct cmek_watch_policy *policy)
{
	char key[32], value[48], *c;
	json_t *json = json_object();
	int state, rc = json ? 0 : -1;

	put_time(value, sizeof(value), "", policy->interval_ms);
	rc |= json_object_set_new(json, "interval", json_string(value));
	put_time(value, sizeof(value), "", policy->retry_ms);
	rc |= json_object_set_new(json, "retry", json_string(value));
	put_time(value, sizeof(value), "", policy->grace_ms);
	rc |= json_object_set_new(json, "grace", json_string(value));
	rc |= json_object_set_new(json, "auto_rewrap", json_string(policy->auto_rewrap ? "yes" : "no"));
	for (state = CMEK_WATCH_HEALTHY + 1; state < CMEK_WATCH_STATES; state++) {
		(void)snprintf(key, sizeof(key), "on_%s", state_names[state]);
		for (c = key; *c; c++)
			*c = *c == '-' ? '_' : *c;
		put_action(value, sizeof(value), policy, state);
		rc |= json_object_set_new(json, key, json_string(value));
	}
	if (rc == 0)
		return json;
	json_decref(json);
	return NULL;
}

/* ---- the machine ---- */

void cmek_watch_init(struct cmek_watch *watch, const struct cmek_watch_policy *policy, uint64_t now_ms)
{
	memset(watch, 0, sizeof(*watch));
	watch->policy = *policy;
	watch->since_ms = watch->good_ms = watch->act_ms = now_ms;
}

static bool is_acted_on(const struct cmek_watch *watch, enum cmek_watch_state state)
{
	return watch->policy.on[state].action != CMEK_WATCH_IGNORE;
}

static bool says_nothing(enum cmek_watch_state state)
{
	return state == CMEK_WATCH_THROTTLED || state == CMEK_WATCH_UNREACHABLE || state == CMEK_WATCH_EXPIRED;
}

/* What both of two answers are, which differ. Healthy when one of them is: that is no reason for another state. */
static enum cmek_watch_state both(enum cmek_watch_state a, enum cmek_watch_state b)
{
	return a < b ? a : b;
}

/* The state that the answer makes, with those before it; the one that is, if none. */
static enum cmek_watch_state weigh(const struct cmek_watch *watch, enum cmek_watch_state answer)
{
	bool silent = says_nothing(answer), healthy = watch->state == CMEK_WATCH_HEALTHY;
	enum cmek_watch_state state = CMEK_WATCH_HEALTHY;

	if (answer == CMEK_WATCH_DESTROYED || answer == (silent ? watch->heard : watch->heard_of_key))
		return answer;
	/* A state that says something of the key only gives way to an answer that comes twice. */
	if (!silent && (healthy || says_nothing(watch->state)) && watch->heard_of_key != CMEK_WATCH_STATES)
		state = both(answer, watch->heard_of_key);
	if (state == CMEK_WATCH_HEALTHY && healthy)
		state = both(answer, watch->heard);
	return state == CMEK_WATCH_HEALTHY ? watch->state : state;
}

bool cmek_watch_answer(struct cmek_watch *watch, enum cmek_watch_state answer, uint64_t now_ms)
{
	enum cmek_watch_state state = weigh(watch, answer);

	watch->heard = answer;
	if (!says_nothing(answer))
		watch->heard_of_key = answer;
	watch->n_throttled = answer == CMEK_WATCH_THROTTLED ? watch->n_throttled + 1 : 0;
	if (answer == CMEK_WATCH_HEALTHY)
		watch->good_ms = now_ms;
	if (state == watch->state)
		return false;
	if (!is_acted_on(watch, watch->state) && !is_acted_on(watch, watch->told))
		watch->act_ms = now_ms;
	watch->state = state;
	if (!says_nothing(state))
		watch->told = state;
	else if (watch->heard_of_key == CMEK_WATCH_HEALTHY)
		watch->heard_of_key = CMEK_WATCH_STATES; /* it was healthy before: that takes two answers again */
	watch->since_ms = now_ms;
	return true;
}

/* When the state's action is due. */
static uint64_t due_ms(const struct cmek_watch *watch, enum cmek_watch_state state)
{
	return watch->act_ms + (watch->policy.on[state].own_grace ? watch->policy.on[state].grace_ms : watch->policy.grace_ms);
}

enum cmek_watch_action cmek_watch_due(const struct cmek_watch *watch, uint64_t now_ms, enum cmek_watch_state *ret_state)
{
	const enum cmek_watch_state states[] = { watch->state, watch->told };
	enum cmek_watch_action action = CMEK_WATCH_IGNORE;
	size_t i;

	for (i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		/* An answer that says that all is well may be the first of two. */
		if (watch->heard == CMEK_WATCH_HEALTHY || now_ms < due_ms(watch, states[i]) ||
		    watch->policy.on[states[i]].action <= action)
			continue;
		action = watch->policy.on[states[i]].action;
		if (ret_state)
			*ret_state = states[i];
	}
	return action;
}

enum cmek_watch_action cmek_watch_intent(const struct cmek_watch *watch)
{
	enum cmek_watch_action now = watch->policy.on[watch->state].action, before = watch->policy.on[watch->told].action;

	return now > before ? now : before;
}

/* The end of a grace that cuts a wait of ms short. */
static uint64_t wait_for_grace(const struct cmek_watch *watch, enum cmek_watch_state state, uint64_t now_ms, uint64_t ms)
{
	uint64_t due = due_ms(watch, state);

	return is_acted_on(watch, state) && now_ms < due && due - now_ms < ms ? due - now_ms : ms;
}

uint64_t cmek_watch_wait_ms(const struct cmek_watch *watch, uint64_t now_ms, uint32_t dice)
{
	bool healthy = watch->state == CMEK_WATCH_HEALTHY && watch->heard == CMEK_WATCH_HEALTHY;
	uint64_t ms = healthy ? watch->policy.interval_ms : watch->policy.retry_ms, factor = 1;
	unsigned i;

	for (i = 1; i < watch->n_throttled && factor < BACKOFF_MAX; i++)
		factor *= 2;
	ms *= factor;
	ms = ms - ms / 10 + ms / 5 * (dice % 1000) / 1000;
	ms = wait_for_grace(watch, watch->state, now_ms, ms);
	return wait_for_grace(watch, watch->told, now_ms, ms);
}
