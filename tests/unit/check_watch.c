/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The key watch's state machine, second by second, and its policy as it is written. */
#include "config.h"

#include "fs/mount/watch.h"
#include "tests/unit/unit.h"

#define S(n) ((uint64_t)(n) * 1000)

static const struct policy_row {
	const char *key, *value;
	bool good;
} policy_rows[] = {
	{ "interval", "30s", true },
	{ "interval", "0", false },
	{ "interval", "100ms", true },
	{ "interval", "99ms", false },
	{ "interval", "ms", false },
	{ "interval", "1.5s", false },
	{ "interval", "99999999999999999999ms", false },
	{ "interval", "9999999999999999999999999999ms", false },
	{ "grace", "0ms", true },
	{ "grace", "31d", false },
	{ "grace", "99999999999999d", false },
	{ "interval", "2d", false },
	{ "retry", "5", true },
	{ "grace", "0s", true },
	{ "grace", "soon", false },
	{ "on_denied", "ignore", true },
	{ "on_unreachable", "lock:2h", true },
	{ "on_pending_deletion", "unmount", true },
	{ "on_destroyed", "lock:0s", true },
	{ "on_denied", "lock:", false },
	{ "on_denied", "lock:x", false },
	{ "on_denied", "", false },
	{ "on_denied", "lockx", false },
	{ "on_denied", "read-only", true },
	{ "on_unreachable", "read-only:1h", true },
	{ "on_denied", "read_only", false },
	{ "on_healthy", "lock", false },
	{ "on_", "lock", false },
	{ "on_denied_", "lock", false },
	{ "nonsense", "1", false },
	{ "auto_rewrap", "yes", true },
	{ "auto_rewrap", "no", true },
	{ "auto_rewrap", "", false },
	{ "auto_rewrap", "y", false },
};

START_TEST(test_policy_forms)
{
	const struct policy_row *row = policy_rows + _i;
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_watch_policy policy;
	int rc;

	cmek_watch_policy_init(&policy);
	rc = cmek_watch_policy_set(&policy, row->key, row->value, &err);
	ck_assert_msg((rc == 0) == row->good, "%s=%s: %d %s", row->key, row->value, rc, err.text);
	ck_assert(rc == 0 || err.kind == CMEK_E_USAGE);
}
END_TEST

/* What is shown can be given again, and is the same then. */
START_TEST(test_policy_shown)
{
	static const char *const given[][2] = { { "interval", "1500ms" }, { "retry", "90s" }, { "grace", "0s" },
						{ "on_denied", "lock:2h" }, { "on_unreachable", "read-only:0s" },
						{ "on_pending_deletion", "unmount" } };
	struct cmek_watch_policy policy, again;
	const char *key;
	json_t *shown, *value;
	size_t i;

	cmek_watch_policy_init(&policy);
	cmek_watch_policy_init(&again);
	for (i = 0; i < UNIT_ROWS(given); i++)
		ck_assert_int_eq(cmek_watch_policy_set(&policy, given[i][0], given[i][1], NULL), 0);
	shown = cmek_watch_policy_json(&policy);
	ck_assert_uint_eq(json_object_size(shown), 11);
	for (i = 0; i < UNIT_ROWS(given); i++)
		ck_assert_str_eq(json_string_value(json_object_get(shown, given[i][0])), given[i][1]);
	ck_assert_str_eq(json_string_value(json_object_get(shown, "on_destroyed")), "lock");
	json_object_foreach(shown, key, value)
		ck_assert_int_eq(cmek_watch_policy_set(&again, key, json_string_value(value), NULL), 0);
	ck_assert_int_eq(memcmp(&policy, &again, sizeof(policy)), 0);
	json_decref(shown);
}
END_TEST

static struct cmek_watch w;

static void setup(void)
{
	struct cmek_watch_policy policy;

	cmek_watch_policy_init(&policy);
	cmek_watch_init(&w, &policy, S(1000));
}

/* Two answers make a state, grace begins with it, and what is due is due until the state goes. */
START_TEST(test_lock_after_grace)
{
	ck_assert(!cmek_watch_answer(&w, CMEK_WATCH_HEALTHY, S(1010)));
	ck_assert(!cmek_watch_answer(&w, CMEK_WATCH_DISABLED, S(1020)));
	ck_assert(cmek_watch_answer(&w, CMEK_WATCH_DISABLED, S(1030)));
	ck_assert_int_eq(w.state, CMEK_WATCH_DISABLED);
	ck_assert_int_eq(cmek_watch_due(&w, S(1329), NULL), CMEK_WATCH_IGNORE);
	ck_assert_int_eq(cmek_watch_due(&w, S(1330), NULL), CMEK_WATCH_LOCK);
	ck_assert(!cmek_watch_answer(&w, CMEK_WATCH_HEALTHY, S(1340)));
	ck_assert_int_eq(cmek_watch_due(&w, S(1341), NULL), CMEK_WATCH_IGNORE);
	ck_assert(cmek_watch_answer(&w, CMEK_WATCH_HEALTHY, S(1350)));
	ck_assert_int_eq(w.state, CMEK_WATCH_HEALTHY);
	ck_assert_int_eq(cmek_watch_due(&w, S(9999), NULL), CMEK_WATCH_IGNORE);
	ck_assert_uint_eq(w.good_ms, S(1350));
}
END_TEST

/*
 * Answers as letters: h(ealthy), t(hrottled), u(nreachable), e(xpired), d(enied), D(isabled), p(ending-deletion), x (destroyed);
 * and the state after each of them. '|': answers like those before it go on for long, which changes nothing.
 */
static const char letters[] = "htuedDpx";
static const struct answers_row {
	const char *name, *answers, *states;
} answers_rows[] = {
	{ "one is none", "hdhuhehDhphth", "hhhhhhhhhhhhh" },
	{ "but for what nobody takes back", "hxxdD", "hxxxx" },
	{ "two equal ones", "ddDDuupphh", "hddDDuDpph" },
	{ "denied, and no answer", "hdu|dudu", "hhu|dddd" },
	{ "no answer, and denied", "hudu|dudu", "hhuu|dddd" },
	{ "two kinds of silence", "hut|utut", "hht|tttt" },
	{ "two kinds of refusal", "hDd|DdDd", "hhd|dddd" },
	{ "two kinds of refusal, behind silence", "uuDdDd", "huuddd" },
	{ "three kinds", "hdue|duedue", "hhuu|dddddd" },
	{ "destroyed, and denied", "hxd|xdxd", "hxx|xxxx" },
	{ "a bad line to a good key", "huhuhuhu", "hhhhhhhh" },
	{ "and to one that was not reached", "uuhu|huhu", "huuu|hhhh" },
	{ "a key that is back now and then", "ddhdhdhd", "hddddddd" },
	{ "back, with silence between", "ddhuh", "hdddh" },
	{ "one good answer is none", "ddhuudd", "hddduud" },
	{ "after silence the same is told once", "dduud", "hddud" },
	{ "a lone refusal, and long silence", "hduuuuuu", "hhuuuuuu" },
	{ "a lone refusal, forgotten", "hdhuud", "hhhhuu" },
};

static enum cmek_watch_state state_of(char letter)
{
	const char *at = strchr(letters, letter);

	ck_assert(at && *at);
	return (enum cmek_watch_state)(at - letters);
}

START_TEST(test_answers)
{
	const struct answers_row *row = answers_rows + _i;
	enum cmek_watch_state before;
	const char *bar;
	bool changed;
	size_t i;
	int n;

	ck_assert_uint_eq(strlen(row->answers), strlen(row->states));
	for (i = 0; row->answers[i]; i++) {
		if (row->answers[i] == '|')
			continue;
		before = w.state;
		changed = cmek_watch_answer(&w, state_of(row->answers[i]), S(1010 + i));
		ck_assert_msg(w.state == state_of(row->states[i]), "%s: %s after %.*s", row->name, cmek_watch_state_name(w.state),
			      (int)i + 1, row->answers);
		ck_assert(changed == (w.state != before));
		ck_assert(w.since_ms == S(1010 + i) || !changed);
	}
	bar = strchr(row->answers, '|');
	for (n = 0; bar && n < 100; n++) {
		for (i = 1; bar[i]; i++)
			ck_assert_msg(!cmek_watch_answer(&w, state_of(bar[i]), S(2000 + n)), "%s: it changes", row->name);
	}
}
END_TEST

/* Nor can answers of any kind lock a volume whose key was refused once only since it was had last. */
START_TEST(test_one_refusal_never_locks)
{
	static const char silent[] = "tue";
	unsigned i, k, power;

	for (i = 0; i < 729; i++) { /* six answers around it */
		setup();
		power = 1;
		for (k = 0; k < 6; k++) {
			if (k == 3)
				(void)cmek_watch_answer(&w, CMEK_WATCH_DENIED, S(1050));
			(void)cmek_watch_answer(&w, state_of(silent[i / power % 3]), S(1020 + 10 * k + k / 3 * 10));
			power *= 3;
		}
		ck_assert_int_eq(cmek_watch_due(&w, S(1000000), NULL), CMEK_WATCH_IGNORE);
		ck_assert_int_eq(cmek_watch_intent(&w), CMEK_WATCH_IGNORE);
	}
}
END_TEST

/* Grace begins with the state, and alternating answers don't begin it anew. */
START_TEST(test_grace_of_alternating_answers)
{
	unsigned n;

	for (n = 0; n < 100; n++)
		(void)cmek_watch_answer(&w, n % 2 ? CMEK_WATCH_UNREACHABLE : CMEK_WATCH_DENIED, S(1010 + 10 * n));
	ck_assert_int_eq(w.state, CMEK_WATCH_DENIED); /* with the third answer */
	ck_assert_uint_eq(w.since_ms, S(1030));
	ck_assert_int_eq(cmek_watch_due(&w, S(1329), NULL), CMEK_WATCH_IGNORE);
	ck_assert_int_eq(cmek_watch_due(&w, S(1330), NULL), CMEK_WATCH_LOCK);
}
END_TEST

/* From one state that is acted on to another grace goes on; what was ignored counts for nothing. */
START_TEST(test_grace_goes_on)
{
	cmek_watch_answer(&w, CMEK_WATCH_UNREACHABLE, S(1010));
	cmek_watch_answer(&w, CMEK_WATCH_UNREACHABLE, S(1020));
	ck_assert_int_eq(cmek_watch_due(&w, S(100000), NULL), CMEK_WATCH_IGNORE);
	cmek_watch_answer(&w, CMEK_WATCH_DISABLED, S(5000));
	cmek_watch_answer(&w, CMEK_WATCH_DISABLED, S(5010));
	ck_assert_int_eq(cmek_watch_due(&w, S(5020), NULL), CMEK_WATCH_IGNORE);
	cmek_watch_answer(&w, CMEK_WATCH_PENDING_DELETION, S(5100));
	cmek_watch_answer(&w, CMEK_WATCH_PENDING_DELETION, S(5110));
	ck_assert_int_eq(cmek_watch_due(&w, S(5309), NULL), CMEK_WATCH_IGNORE);
	ck_assert_int_eq(cmek_watch_due(&w, S(5310), NULL), CMEK_WATCH_LOCK);
}
END_TEST

/* What was told of the key is not untold by silence: grace goes on, whatever the policy for the silence is. */
START_TEST(test_grace_goes_on_in_silence)
{
	enum cmek_watch_state why = CMEK_WATCH_HEALTHY;
	uint64_t ms;

	cmek_watch_answer(&w, CMEK_WATCH_DISABLED, S(1010));
	cmek_watch_answer(&w, CMEK_WATCH_DISABLED, S(1020));
	cmek_watch_answer(&w, CMEK_WATCH_UNREACHABLE, S(1100));
	ck_assert(cmek_watch_answer(&w, CMEK_WATCH_UNREACHABLE, S(1110)));
	ck_assert_int_eq(w.state, CMEK_WATCH_UNREACHABLE);
	ck_assert_int_eq(cmek_watch_intent(&w), CMEK_WATCH_LOCK);
	ck_assert_int_eq(cmek_watch_due(&w, S(1319), NULL), CMEK_WATCH_IGNORE);
	ms = cmek_watch_wait_ms(&w, S(1318), 500);
	ck_assert_uint_eq(ms, S(2));
	ck_assert_int_eq(cmek_watch_due(&w, S(1320), &why), CMEK_WATCH_LOCK);
	ck_assert_int_eq(why, CMEK_WATCH_DISABLED);
	/* told again: no new grace */
	cmek_watch_answer(&w, CMEK_WATCH_DENIED, S(1400));
	cmek_watch_answer(&w, CMEK_WATCH_DENIED, S(1410));
	ck_assert_int_eq(cmek_watch_due(&w, S(1411), &why), CMEK_WATCH_LOCK);
	ck_assert_int_eq(why, CMEK_WATCH_DENIED);
	/* and with the key back it is over, silence or not */
	cmek_watch_answer(&w, CMEK_WATCH_HEALTHY, S(1500));
	cmek_watch_answer(&w, CMEK_WATCH_HEALTHY, S(1510));
	cmek_watch_answer(&w, CMEK_WATCH_EXPIRED, S(1600));
	cmek_watch_answer(&w, CMEK_WATCH_EXPIRED, S(1610));
	ck_assert_int_eq(cmek_watch_due(&w, S(9999), NULL), CMEK_WATCH_IGNORE);
	ck_assert_int_eq(cmek_watch_intent(&w), CMEK_WATCH_IGNORE);
}
END_TEST

START_TEST(test_own_grace)
{
	struct cmek_watch_policy policy = w.policy;

	ck_assert_int_eq(cmek_watch_policy_set(&policy, "on_unreachable", "unmount:1h", NULL), 0);
	cmek_watch_init(&w, &policy, S(1000));
	cmek_watch_answer(&w, CMEK_WATCH_UNREACHABLE, S(1010));
	cmek_watch_answer(&w, CMEK_WATCH_UNREACHABLE, S(1020));
	ck_assert_int_eq(cmek_watch_due(&w, S(4619), NULL), CMEK_WATCH_IGNORE);
	ck_assert_int_eq(cmek_watch_due(&w, S(4620), NULL), CMEK_WATCH_UNMOUNT);
}
END_TEST

START_TEST(test_waits)
{
	uint64_t ms, before = 0;
	uint32_t dice;
	int i;

	for (dice = 0; dice < 5000; dice += 7) {
		ms = cmek_watch_wait_ms(&w, S(1000), dice);
		ck_assert(ms >= S(54) && ms <= S(66));
	}
	cmek_watch_answer(&w, CMEK_WATCH_DENIED, S(1010));
	ms = cmek_watch_wait_ms(&w, S(1010), 500);
	ck_assert(ms >= S(9) && ms <= S(11));
	/* Not past the end of a grace. */
	cmek_watch_answer(&w, CMEK_WATCH_DENIED, S(1020));
	ck_assert_uint_eq(cmek_watch_wait_ms(&w, S(1318), 500), S(2));
	ms = cmek_watch_wait_ms(&w, S(1320), 500);
	ck_assert(ms >= S(9) && ms <= S(11));
	for (i = 0; i < 40; i++) {
		cmek_watch_answer(&w, CMEK_WATCH_THROTTLED, S(2000 + i));
		ms = cmek_watch_wait_ms(&w, S(2000 + i), 500);
		ck_assert(ms >= before && ms <= S(352));
		before = ms;
	}
	ck_assert_uint_ge(before, S(288));
}
END_TEST

START_TEST(test_kinds)
{
	int kind;

	for (kind = CMEK_E_NONE + 1; kind < CMEK_E_KIND_MAX; kind++)
		ck_assert_int_ne(cmek_watch_state_of((enum cmek_kind)kind), CMEK_WATCH_HEALTHY);
	ck_assert_int_eq(cmek_watch_state_of(CMEK_E_KEY_DISABLED), CMEK_WATCH_DISABLED);
	ck_assert_int_eq(cmek_watch_state_of(CMEK_E_SYSTEM), CMEK_WATCH_UNREACHABLE);
	ck_assert(cmek_watch_unwrap_tells(CMEK_E_NOT_FOUND) && cmek_watch_unwrap_tells(CMEK_E_DENIED));
	ck_assert(!cmek_watch_unwrap_tells(CMEK_E_UNREACHABLE) && !cmek_watch_unwrap_tells(CMEK_E_THROTTLED));
	ck_assert_str_eq(cmek_watch_state_name(CMEK_WATCH_PENDING_DELETION), "pending-deletion");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("watch");
	TCase *tc = tcase_create("watch");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_loop_test(tc, test_policy_forms, 0, UNIT_ROWS(policy_rows));
	tcase_add_test(tc, test_policy_shown);
	tcase_add_test(tc, test_lock_after_grace);
	tcase_add_loop_test(tc, test_answers, 0, UNIT_ROWS(answers_rows));
	tcase_add_test(tc, test_one_refusal_never_locks);
	tcase_add_test(tc, test_grace_of_alternating_answers);
	tcase_add_test(tc, test_grace_goes_on);
	tcase_add_test(tc, test_grace_goes_on_in_silence);
	tcase_add_test(tc, test_own_grace);
	tcase_add_test(tc, test_waits);
	tcase_add_test(tc, test_kinds);
	suite_add_tcase(s, tc);
	return unit_run(s);
}
