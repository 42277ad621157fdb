/* SPDX-License-Identifier: GPL-3.0-or-later */
/* fsck's table of problems: every code has its row, and what may be repaired is decided by mode and row alone. */
#include "config.h"

#include <check.h>
#include <string.h>

#include "tests/unit/unit.h"
#include "tools/fsck_problem.h"

static struct cmek_tool tool = { .program = "fsck", .quiet = true };

static struct cmek_fsck_findings findings_in(enum cmek_fsck_mode mode)
{
	struct cmek_fsck_findings findings = { .tool = &tool, .mode = mode, .list = json_array() };

	pthread_mutex_init(&findings.lock, NULL);
	return findings;
}

START_TEST(row)
{
	const struct cmek_fsck_row *row = cmek_fsck_row((enum cmek_fsck_code)_i), *other;
	int k;

	ck_assert_int_eq(row->code, _i);
	ck_assert_uint_eq(strspn(row->name, "abcdefghijklmnopqrstuvwxyz-"), strlen(row->name));
	ck_assert_uint_gt(strlen(row->sentence), 10);
	/* What is done has words, and only that. */
	ck_assert_int_eq(row->done == NULL, row->repair == CMEK_FSCK_LEAVE);
	for (k = 0; k < _i; k++) {
		other = cmek_fsck_row((enum cmek_fsck_code)k);
		ck_assert_str_ne(row->name, other->name);
		ck_assert_str_ne(row->sentence, other->sentence);
	}
}
END_TEST

static const struct {
	enum cmek_fsck_mode mode;
	enum cmek_fsck_code code;
	bool may;
} modes[] = {
	{ CMEK_FSCK_NO, CMEK_FSCK_SIZE_LONG, false },	   { CMEK_FSCK_NO, CMEK_FSCK_FOREIGN, false },
	{ CMEK_FSCK_NO, CMEK_FSCK_BLOCK_BAD, false },	   { CMEK_FSCK_PREEN, CMEK_FSCK_SIZE_LONG, true },
	{ CMEK_FSCK_PREEN, CMEK_FSCK_FOREIGN, false },	   { CMEK_FSCK_PREEN, CMEK_FSCK_BLOCK_BAD, false },
	{ CMEK_FSCK_YES, CMEK_FSCK_SIZE_LONG, true },	   { CMEK_FSCK_YES, CMEK_FSCK_FOREIGN, true },
	{ CMEK_FSCK_YES, CMEK_FSCK_BLOCK_BAD, false },	   { CMEK_FSCK_YES, CMEK_FSCK_DEK_UNKNOWN, false },
};

START_TEST(may_fix)
{
	struct cmek_fsck_findings findings = findings_in(modes[_i].mode);

	ck_assert_int_eq(cmek_fsck_may_fix(&findings, modes[_i].code), modes[_i].may);
	json_decref(findings.list);
}
END_TEST

START_TEST(status)
{
	struct cmek_fsck_findings findings = findings_in(CMEK_FSCK_YES);

	ck_assert_int_eq(cmek_fsck_status(&findings), 0);
	cmek_fsck_tell(&findings, CMEK_FSCK_SIZE_LONG, "a", "/b", true, "%d bytes", 7);
	ck_assert_int_eq(cmek_fsck_status(&findings), 1);
	cmek_fsck_tell(&findings, CMEK_FSCK_BLOCK_BAD, "c", NULL, false, NULL);
	ck_assert_int_eq(cmek_fsck_status(&findings), 5);
	ck_assert_uint_eq(json_array_size(findings.list), 2);
	ck_assert_str_eq(json_string_value(json_object_get(json_array_get(findings.list, 0), "detail")), "7 bytes");
	ck_assert(json_is_null(json_object_get(json_array_get(findings.list, 1), "plain")));
	json_decref(findings.list);
	findings = findings_in(CMEK_FSCK_NO);
	cmek_fsck_tell(&findings, CMEK_FSCK_BLOCK_BAD, "c", NULL, false, NULL);
	ck_assert_int_eq(cmek_fsck_status(&findings), 4);
	json_decref(findings.list);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fsck_problem");
	TCase *tc = tcase_create("fsck_problem");

	tcase_add_loop_test(tc, row, 0, CMEK_FSCK_CODE_MAX);
	tcase_add_loop_test(tc, may_fix, 0, UNIT_ROWS(modes));
	tcase_add_test(tc, status);
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
