/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The set of absent groups against a plain array of flags. */
#include "config.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "fs/content/absent.h"

enum { GROUPS = 200 };

static void check_same(const struct cmek_absent *set, const bool *model)
{
	size_t i;

	for (i = 0; i < GROUPS; i++)
		ck_assert_msg(cmek_absent_has(set, i) == model[i], "group %zu", i);
	for (i = 0; i < set->n; i++) {
		ck_assert(set->ranges[i].count > 0);
		if (i > 0)
			ck_assert(set->ranges[i].first > set->ranges[i - 1].first + set->ranges[i - 1].count);
	}
}

START_TEST(random_operations)
{
	struct cmek_absent set = { 0 };
	bool model[GROUPS] = { false };
	uint64_t first, count, i;
	int step;

	srandom((unsigned)_i + 1);
	for (step = 0; step < 1000; step++) {
		first = (uint64_t)random() % GROUPS;
		switch (random() % 8) {
		case 0:
			count = (uint64_t)random() % (GROUPS - first + 1);
			ck_assert_int_eq(cmek_absent_add(&set, first, count), 0);
			for (i = 0; i < count; i++)
				model[first + i] = true;
			break;
		case 1:
			if (random() % 8 == 0) {
				cmek_absent_truncate(&set, first);
				memset(model + first, 0, GROUPS - first);
			}
			break;
		default:
			ck_assert_int_eq(cmek_absent_reserve(&set), 0);
			cmek_absent_remove(&set, first);
			model[first] = false;
		}
		check_same(&set, model);
	}
	cmek_absent_done(&set);
}
END_TEST

START_TEST(smallest)
{
	struct cmek_absent set = { 0 };

	ck_assert_int_eq(cmek_absent_add(&set, 10, 5), 0);
	ck_assert_int_eq(cmek_absent_add(&set, 20, 2), 0);
	ck_assert_int_eq(cmek_absent_add(&set, 30, 9), 0);
	ck_assert_uint_eq(cmek_absent_smallest(&set).first, 20);
	ck_assert_uint_eq(cmek_absent_smallest(&set).count, 2);
	cmek_absent_done(&set);
}
END_TEST

START_TEST(skip_and_copy)
{
	struct cmek_absent set = { 0 }, copy = { 0 };

	ck_assert_int_eq(cmek_absent_copy(&set, &copy), 0);
	ck_assert_uint_eq(cmek_absent_skip(&copy, 7), 7);
	ck_assert_int_eq(cmek_absent_add(&set, 10, 5), 0);
	ck_assert_int_eq(cmek_absent_add(&set, 20, 2), 0);
	ck_assert_int_eq(cmek_absent_copy(&set, &copy), 0);
	cmek_absent_truncate(&set, 0);
	ck_assert_uint_eq(cmek_absent_skip(&copy, 9), 9);
	ck_assert_uint_eq(cmek_absent_skip(&copy, 10), 15);
	ck_assert_uint_eq(cmek_absent_skip(&copy, 14), 15);
	ck_assert_uint_eq(cmek_absent_skip(&copy, 15), 15);
	ck_assert_uint_eq(cmek_absent_skip(&copy, 21), 22);
	ck_assert_int_eq(cmek_absent_reserve(&copy), 0);
	cmek_absent_remove(&copy, 12);
	ck_assert_uint_eq(cmek_absent_skip(&copy, 10), 12);
	cmek_absent_done(&copy);
	cmek_absent_done(&set);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("absent");
	TCase *tc = tcase_create("absent");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tc, random_operations, 0, 8);
	tcase_add_test(tc, smallest);
	tcase_add_test(tc, skip_and_copy);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
