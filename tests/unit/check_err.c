/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * base/err.h: the first failure wins, texts are cut where they must be, and every kind has a name of its own.
 */
#include "config.h"

#include "base/err.h"
#include "tests/unit/unit.h"

START_TEST(set_once)
{
	struct cmek_error err = CMEK_ERROR_INIT;

	ck_assert(!cmek_error_is_set(&err));
	ck_assert_int_eq(cmek_error_set(&err, CMEK_E_DENIED, EACCES, "slot %d", 3), -EACCES);
	ck_assert(cmek_error_is_set(&err));
	ck_assert_int_eq(err.kind, CMEK_E_DENIED);
	ck_assert_int_eq(err.err, EACCES);
	ck_assert_str_eq(err.text, "slot 3");

	ck_assert_int_eq(cmek_error_set(&err, CMEK_E_LIMIT, ENOMEM, "later"), -ENOMEM);
	ck_assert_int_eq(cmek_error_sys(&err, ENOENT, "later"), -ENOENT);
	ck_assert_int_eq(err.kind, CMEK_E_DENIED);
	ck_assert_str_eq(err.text, "slot 3");

	cmek_error_clear(&err);
	ck_assert(!cmek_error_is_set(&err));
	ck_assert_int_eq(cmek_error_set(&err, CMEK_E_LIMIT, ENOMEM, "again"), -ENOMEM);
	ck_assert_str_eq(err.text, "again");
}
END_TEST

START_TEST(null_is_allowed)
{
	ck_assert_int_eq(cmek_error_set(NULL, CMEK_E_DENIED, EACCES, "x"), -EACCES);
	ck_assert_int_eq(cmek_error_sys(NULL, EIO, "x"), -EIO);
	cmek_error_prefix(NULL, "x");
	cmek_error_clear(NULL);
	ck_assert(!cmek_error_is_set(NULL));
}
END_TEST

START_TEST(sys)
{
	struct cmek_error err = CMEK_ERROR_INIT;

	ck_assert_int_eq(cmek_error_sys(&err, ENOENT, "can't open \"%s\"", "x"), -ENOENT);
	ck_assert_int_eq(err.kind, CMEK_E_SYSTEM);
	ck_assert_str_eq(err.text, "can't open \"x\": No such file or directory");
}
END_TEST

/* A failure that was reported with an errno of 0 is still a failure. */
START_TEST(never_success)
{
	struct cmek_error err = CMEK_ERROR_INIT;

	ck_assert_int_eq(cmek_error_set(&err, CMEK_E_SYSTEM, 0, "x"), -EIO);
	ck_assert_int_eq(err.err, EIO);
	ck_assert_int_eq(cmek_error_sys(NULL, -ENOENT, "x"), -EIO);
	cmek_error_clear(&err);
	ck_assert_int_lt(cmek_error_set(&err, CMEK_E_NONE, EINVAL, "x"), 0);
	ck_assert(cmek_error_is_set(&err));
	cmek_error_clear(&err);
	ck_assert_int_lt(cmek_error_set(&err, CMEK_E_KIND_MAX, EINVAL, "x"), 0);
	ck_assert_int_eq(err.kind, CMEK_E_SYSTEM);
}
END_TEST

START_TEST(prefix)
{
	struct cmek_error err = CMEK_ERROR_INIT;

	cmek_error_prefix(&err, "nothing yet");
	ck_assert(!cmek_error_is_set(&err));
	ck_assert_str_eq(err.text, "");
	cmek_error_set(&err, CMEK_E_DENIED, EACCES, "denied");
	cmek_error_prefix(&err, "slot %d", 2);
	cmek_error_prefix(&err, "\"%s\"", "/srv/db");
	ck_assert_str_eq(err.text, "\"/srv/db\": slot 2: denied");
	ck_assert_int_eq(err.kind, CMEK_E_DENIED);
}
END_TEST

/* Where a text is too long, the cause survives: the end of a system error, the text behind a prefix. */
START_TEST(long_texts)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	char x[3000];

	memset(x, 'x', sizeof(x) - 1);
	x[sizeof(x) - 1] = '\0';
	cmek_error_set(&err, CMEK_E_USAGE, EINVAL, "%s", x);
	ck_assert_uint_eq(strlen(err.text), CMEK_ERROR_TEXT_MAX - 1);
	cmek_error_prefix(&err, "p");
	ck_assert_uint_eq(strlen(err.text), CMEK_ERROR_TEXT_MAX - 1);
	ck_assert_int_eq(strncmp(err.text, "p: xxx", 6), 0);

	cmek_error_clear(&err);
	cmek_error_sys(&err, ENOSPC, "%s", x);
	ck_assert_ptr_nonnull(strstr(err.text, "x: No space left on device"));
	cmek_error_prefix(&err, "%s", x);
	ck_assert_uint_eq(strlen(err.text), CMEK_ERROR_TEXT_MAX - 1);

	cmek_error_clear(&err);
	cmek_error_set(&err, CMEK_E_USAGE, EINVAL, "the cause");
	cmek_error_prefix(&err, "%s", x);
	ck_assert_ptr_nonnull(strstr(err.text, "x: the cause"));
}
END_TEST

START_TEST(kind_names)
{
	const char *name = cmek_kind_name((enum cmek_kind)_i);
	int other;

	ck_assert_ptr_nonnull(name);
	ck_assert_uint_eq(strspn(name, "abcdefghijklmnopqrstuvwxyz-"), strlen(name));
	for (other = 0; other < _i; other++)
		ck_assert_str_ne(name, cmek_kind_name((enum cmek_kind)other));
}
END_TEST

START_TEST(kind_names_beyond)
{
	ck_assert_str_eq(cmek_kind_name(CMEK_E_KIND_MAX), "unknown");
	ck_assert_str_eq(cmek_kind_name((enum cmek_kind)-1), "unknown");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("err");
	TCase *tc = tcase_create("err");

	tcase_add_test(tc, set_once);
	tcase_add_test(tc, null_is_allowed);
	tcase_add_test(tc, sys);
	tcase_add_test(tc, never_success);
	tcase_add_test(tc, prefix);
	tcase_add_test(tc, long_texts);
	tcase_add_loop_test(tc, kind_names, 0, CMEK_E_KIND_MAX);
	tcase_add_test(tc, kind_names_beyond);
	suite_add_tcase(s, tc);
	return unit_run(s);
}
