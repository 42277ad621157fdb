/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The arithmetic of store files: the table of doc/format.md section 5.1, and that sizes go there and back. */
#include "config.h"

#include <check.h>
#include <stdlib.h>

#include "fs/content/block_map.h"
#include "fs/content/content.h"

static const struct {
	uint32_t block_size;
	uint64_t plain, stored;
} size_rows[] = {
	{ 4096, 0, 0 },
	{ 4096, 1, 4097 },
	{ 4096, 4095, 8191 },
	{ 4096, 4096, 8192 },
	{ 4096, 4097, 8193 },
	{ 4096, 393216, 397312 },
	{ 4096, 393217, 401409 },
	{ 16384, 16383, 20479 },
	{ 16384, 16384, 20480 },
	{ 16384, 16385, 20481 },
	{ 16384, 1572864, 1576960 },
	{ 16384, 1572865, 1581057 },
	{ 65536, 65535, 69631 },
	{ 65536, 65536, 69632 },
	{ 65536, 65537, 69633 },
	{ 65536, 6291456, 6295552 },
	{ 65536, 6291457, 6299649 },
};

START_TEST(documented_sizes)
{
	ck_assert_uint_eq(cmek_stored_size(size_rows[_i].block_size, size_rows[_i].plain), size_rows[_i].stored);
	ck_assert_uint_eq(cmek_content_plain_size(size_rows[_i].block_size, size_rows[_i].stored), size_rows[_i].plain);
}
END_TEST

static const uint32_t block_sizes[] = { 4096, 8192, 16384, 32768, 65536 };

START_TEST(there_and_back)
{
	uint32_t b = block_sizes[_i];
	uint64_t group = cmek_group_plain_bytes(b), max = cmek_plain_size_max(b), plain;
	int step;

	srandom(7);
	ck_assert_uint_eq(cmek_content_plain_size(b, cmek_stored_size(b, max)), max);
	ck_assert(cmek_stored_size(b, max) <= INT64_MAX);
	ck_assert_uint_eq(cmek_group_count(b, max), UINT32_MAX);
	for (step = 0; step < 20000; step++) {
		plain = (uint64_t)random() % (5 * group);
		if (step % 2)
			plain = (uint64_t)random() % 40 * group + (uint64_t)random() % 3 - (plain > 0);
		if (plain > max)
			continue;
		ck_assert_uint_eq(cmek_content_plain_size(b, cmek_stored_size(b, plain)), plain);
	}
}
END_TEST

START_TEST(stored_sizes_of_no_plain_size)
{
	uint32_t b = block_sizes[_i];
	uint64_t group = cmek_group_stored_bytes(b);

	ck_assert_uint_eq(cmek_content_plain_size(b, 1), 0);
	ck_assert_uint_eq(cmek_content_plain_size(b, 4096), 0);
	ck_assert_uint_eq(cmek_content_plain_size(b, group + 1), cmek_group_plain_bytes(b));
	ck_assert_uint_eq(cmek_content_plain_size(b, group + 4096), cmek_group_plain_bytes(b));
}
END_TEST

START_TEST(places_and_lengths)
{
	uint32_t b = block_sizes[_i];
	uint64_t group = cmek_group_plain_bytes(b);

	ck_assert_uint_eq(cmek_block_stored_off(b, 0), 4096);
	ck_assert_uint_eq(cmek_block_stored_off(b, 95), 4096 + 95ull * b);
	ck_assert_uint_eq(cmek_block_stored_off(b, 96), 4096 + 96ull * b + 4096);
	ck_assert_uint_eq(cmek_map_stored_off(b, 2), 2 * (4096 + 96ull * b));
	ck_assert_uint_eq(cmek_block_plain_len(b, b + 1, 0), b);
	ck_assert_uint_eq(cmek_block_plain_len(b, b + 1, 1), 1);
	ck_assert_uint_eq(cmek_block_plain_len(b, b + 1, 2), 0);
	ck_assert_uint_eq(cmek_group_plain_len(b, group + 5, 0), group);
	ck_assert_uint_eq(cmek_group_plain_len(b, group + 5, 1), 5);
	ck_assert_uint_eq(cmek_group_plain_len(b, group + 5, 2), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("block_map");
	TCase *tc = tcase_create("block_map");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tc, documented_sizes, 0, sizeof(size_rows) / sizeof(*size_rows));
	tcase_add_loop_test(tc, there_and_back, 0, 5);
	tcase_add_loop_test(tc, stored_sizes_of_no_plain_size, 0, 5);
	tcase_add_loop_test(tc, places_and_lengths, 0, 5);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
