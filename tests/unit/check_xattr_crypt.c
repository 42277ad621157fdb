/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Extended attributes: the vector of doc/format.md section 4.4, lengths, names that are not ours, and damage. */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/secret.h"
#include "fs/tree/xattr_crypt.h"
#include "tests/unit/unit.h"
#include "tests/unit/vectors.h"

static struct cmek_secret *key, *name_key;
static struct cmek_seal_right right = { .dek = 1, .first = 9, .epoch = 1 };

static void setup(void)
{
	uint8_t *bytes = vector_get("xattr_key", NULL), *salt = vector_get("salt", NULL);

	cmek_secret_allow_unlocked();
	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_XATTR, bytes, 32, &key, NULL), 0);
	free(bytes);
	bytes = vector_get("xattr_name_key", NULL);
	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_XATTR_NAME, bytes, 32, &name_key, NULL), 0);
	memcpy(right.salt, salt, sizeof right.salt);
	free(bytes);
	free(salt);
}

static void teardown(void)
{
	cmek_secret_free(key);
	cmek_secret_free(name_key);
}

START_TEST(vector)
{
	char *name = (char *)vector_get("xattr_name", NULL), stored[CMEK_XATTR_STORED_NAME_LEN + 1];
	char opened[CMEK_XATTR_NAME_MAX + 1];
	uint8_t data[256], *want;
	const uint8_t *value;
	size_t n, len;
	uint16_t dek;

	ck_assert_int_eq(cmek_xattr_name(name_key, 1, name, stored), 0);
	vector_check("xattr_stored_name", stored, strlen(stored));
	ck_assert(cmek_xattr_name_parse(stored, &dek));
	ck_assert_uint_eq(dek, 1);
	want = vector_get("xattr_value", &n);
	ck_assert_int_eq(cmek_xattr_seal(key, &right, stored, name, want, n, data), 0);
	vector_check("xattr_stored_value", data, CMEK_XATTR_OVERHEAD(strlen(name)) + n);
	ck_assert_int_eq(cmek_xattr_open(key, name_key, stored, data, CMEK_XATTR_OVERHEAD(strlen(name)) + n, opened, &value,
					 &len), 0);
	ck_assert_str_eq(opened, name);
	ck_assert_uint_eq(len, n);
	ck_assert_mem_eq(value, want, n);
	free(want);
	free(name);
}
END_TEST

START_TEST(lengths)
{
	static const size_t value_lens[] = { 0, 1, 100, 65536 - CMEK_XATTR_OVERHEAD(CMEK_XATTR_NAME_MAX) };
	char name[CMEK_XATTR_NAME_MAX + 1], opened[CMEK_XATTR_NAME_MAX + 1], stored[CMEK_XATTR_STORED_NAME_LEN + 1];
	size_t n = value_lens[_i % 4], name_len = _i < 4 ? 6 : CMEK_XATTR_NAME_MAX, total, len;
	uint8_t *data = malloc(65536), *plain = malloc(n + 1);
	const uint8_t *value;

	memset(name, 'n', sizeof name);
	memcpy(name, "user.", 5);
	name[name_len] = 0;
	memset(plain, 0x5a, n + 1);
	total = CMEK_XATTR_OVERHEAD(name_len) + n;
	ck_assert_uint_le(total, 65536);
	ck_assert_int_eq(cmek_xattr_name(name_key, 1, name, stored), 0);
	ck_assert_int_eq(cmek_xattr_seal(key, &right, stored, name, plain, n, data), 0);
	ck_assert_int_eq(cmek_xattr_open(key, name_key, stored, data, total, opened, &value, &len), 0);
	ck_assert_str_eq(opened, name);
	ck_assert_uint_eq(len, n);
	ck_assert(n == 0 || memcmp(value, plain, n) == 0);
	free(data);
	free(plain);
}
END_TEST

static const struct {
	const char *name;
	bool ours;
} stored_names[] = {
	{ "user.cmekfs.f7Nzy3ejP0FXOu3l9VtFRg.0001", true },
	{ "user.cmekfs.f7Nzy3ejP0FXOu3l9VtFRg.00ff", true },
	{ "user.cmekfs.f7Nzy3ejP0FXOu3l9VtFRg.00FF", false },
	{ "user.cmekfs.f7Nzy3ejP0FXOu3l9VtFRh.0001", false }, /* unused bits */
	{ "user.cmekfs.f7Nzy3ejP0FXOu3l9VtF+g.0001", false },
	{ "user.cmekfs.f7Nzy3ejP0FXOu3l9VtFRg.001", false },
	{ "user.cmekfs.f7Nzy3ejP0FXOu3l9VtFRg.00011", false },
	{ "user.cmekfs.f7Nzy3ejP0FXOu3l9VtFRg-0001", false },
	{ "trusted.cmekfs.f7Nzy3ejP0FXOu3l9VtFRg.0001", false },
	{ "user.comment", false },
	{ "security.capability", false },
	{ "", false },
};

START_TEST(which_are_ours)
{
	uint16_t dek;

	ck_assert_int_eq(cmek_xattr_name_parse(stored_names[_i].name, &dek), stored_names[_i].ours);
}
END_TEST

/* Any bit of the value, any other name, any other length. */
START_TEST(damage)
{
	char stored[CMEK_XATTR_STORED_NAME_LEN + 1], other[CMEK_XATTR_STORED_NAME_LEN + 1], opened[CMEK_XATTR_NAME_MAX + 1];
	uint8_t good[64], data[64];
	const uint8_t *value;
	size_t n = CMEK_XATTR_OVERHEAD(6) + 5, len, i;

	ck_assert_int_eq(cmek_xattr_name(name_key, 1, "user.a", stored), 0);
	ck_assert_int_eq(cmek_xattr_name(name_key, 1, "user.b", other), 0);
	ck_assert_int_eq(cmek_xattr_seal(key, &right, stored, "user.a", "value", 5, good), 0);
	/* not the salt: that chooses the key */
	for (i = CMEK_SALT_LEN * 8; i < n * 8; i++) {
		memcpy(data, good, n);
		data[i / 8] ^= (uint8_t)(1u << (i % 8));
		ck_assert_int_eq(cmek_xattr_open(key, name_key, stored, data, n, opened, &value, &len), -EBADMSG);
	}
	for (i = 0; i < n; i++) {
		memcpy(data, good, n);
		ck_assert_int_eq(cmek_xattr_open(key, name_key, stored, data, i, opened, &value, &len), -EBADMSG);
	}
	memcpy(data, good, n);
	ck_assert_int_eq(cmek_xattr_open(key, name_key, other, data, n, opened, &value, &len), -EBADMSG);
	/* sealed by somebody with the key under a name that is not its own */
	ck_assert_int_eq(cmek_xattr_seal(key, &right, other, "user.a", "value", 5, data), 0);
	ck_assert_int_eq(cmek_xattr_open(key, name_key, other, data, n, opened, &value, &len), -EBADMSG);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("xattr_crypt");
	TCase *tc = tcase_create("xattr_crypt");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, vector);
	tcase_add_loop_test(tc, lengths, 0, 8);
	tcase_add_loop_test(tc, which_are_ours, 0, sizeof(stored_names) / sizeof(*stored_names));
	tcase_add_test(tc, damage);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
