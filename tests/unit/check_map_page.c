/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Map pages and blocks against the vectors of doc/format.md section 8, and everything a page must not get away with. */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "fs/content/map_page.h"
#include "vectors.h"

static struct cmek_secret *content_key(void)
{
	uint8_t *bytes = vector_get("content_key", NULL);
	struct cmek_secret *key = NULL;

	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_CONTENT, bytes, 32, &key, NULL), 0);
	free(bytes);
	return key;
}

static void right_of(struct cmek_seal_right *right, uint64_t counter)
{
	uint8_t *salt = vector_get("salt", NULL);

	memset(right, 0, sizeof(*right));
	right->dek = 1;
	right->first = counter;
	right->epoch = 1;
	memcpy(right->salt, salt, CMEK_SALT_LEN);
	free(salt);
}

START_TEST(blocks)
{
	struct cmek_secret *key = content_key();
	char plain_name[32], cipher_name[32], entry_name[32];
	uint8_t *plain, *cipher, *sealed, *opened, entry[CMEK_ENTRY_BYTES];
	struct cmek_seal_right right;
	size_t len;

	snprintf(plain_name, sizeof(plain_name), "block%d_plain", _i);
	snprintf(cipher_name, sizeof(cipher_name), "block%d_cipher", _i);
	snprintf(entry_name, sizeof(entry_name), "block%d_entry", _i);
	plain = vector_get(plain_name, &len);
	cipher = vector_get(entry_name, NULL);
	right_of(&right, cmek_entry_counter(cipher) - 1);
	free(cipher);
	sealed = malloc(len);
	opened = malloc(len);
	ck_assert_int_eq(cmek_block_seal(key, &right, 1, (uint64_t)_i, plain, (uint32_t)len, sealed, entry), 0);
	vector_check(cipher_name, sealed, len);
	vector_check(entry_name, entry, sizeof(entry));
	ck_assert_int_eq(cmek_block_open(key, entry, (uint64_t)_i, sealed, (uint32_t)len, opened), 0);
	ck_assert(memcmp(opened, plain, len) == 0);
	/* at another place, in another length, with another entry */
	ck_assert_int_eq(cmek_block_open(key, entry, (uint64_t)_i + 1, sealed, (uint32_t)len, opened), -EBADMSG);
	ck_assert_int_eq(cmek_block_open(key, entry, (uint64_t)_i, sealed, (uint32_t)len - 1, opened), -EBADMSG);
	entry[16] ^= 1;
	ck_assert_int_eq(cmek_block_open(key, entry, (uint64_t)_i, sealed, (uint32_t)len, opened), -EBADMSG);
	free(plain);
	free(sealed);
	free(opened);
	cmek_secret_free(key);
}
END_TEST

START_TEST(page_there_and_back)
{
	struct cmek_secret *key = content_key();
	uint8_t *page = vector_get("map0_page", NULL), again[CMEK_MAP_BYTES], entries[CMEK_MAP_ENTRIES_BYTES];
	struct cmek_map_trailer trailer;
	struct cmek_seal_right right;
	struct cmek_map_head head;

	ck_assert_int_eq(cmek_map_head_decode(page, &head), 0);
	ck_assert_uint_eq(head.dek, 1);
	vector_check("salt", head.salt, sizeof(head.salt));
	vector_check("file_id", head.file_id, sizeof(head.file_id));
	ck_assert_int_eq(cmek_map_open(key, &head, 4096, 0, page, entries, &trailer), 0);
	vector_check("block0_entry", entries, CMEK_ENTRY_BYTES);
	vector_check("block1_entry", entries + CMEK_ENTRY_BYTES, CMEK_ENTRY_BYTES);
	vector_check("mount_id", trailer.mount_id, sizeof(trailer.mount_id));
	right_of(&right, head.counter);
	ck_assert_int_eq(cmek_map_seal(key, &right, head.file_id, entries, &trailer, again), 0);
	ck_assert(memcmp(again, page, sizeof(again)) == 0);
	free(page);
	cmek_secret_free(key);
}
END_TEST

START_TEST(later_page)
{
	struct cmek_secret *key = content_key();
	uint8_t *page = vector_get("map5_page", NULL), entries[CMEK_MAP_ENTRIES_BYTES];
	struct cmek_map_trailer trailer;
	struct cmek_map_head head;

	ck_assert_int_eq(cmek_map_head_decode(page, &head), 0);
	ck_assert_int_eq(cmek_map_open(key, &head, 4096, 5, page, entries, &trailer), 0);
	ck_assert_uint_eq(trailer.plain_bytes, 393216);
	ck_assert_uint_eq(trailer.record_seq, 77);
	ck_assert(cmek_entry_is_hole(entries));
	ck_assert_uint_eq(cmek_entry_counter(entries + CMEK_ENTRY_BYTES), 1003);
	free(page);
	cmek_secret_free(key);
}
END_TEST

/* Each byte of a page counts. */
START_TEST(flipped_bytes)
{
	struct cmek_secret *key = content_key();
	uint8_t *page = vector_get("map0_page", NULL), entries[CMEK_MAP_ENTRIES_BYTES];
	struct cmek_map_trailer trailer;
	struct cmek_map_head head;
	size_t i;
	int r;

	for (i = 0; i < CMEK_MAP_BYTES; i++) {
		page[i] ^= 0x40;
		r = cmek_map_head_decode(page, &head);
		if (r == 0)
			r = cmek_map_open(key, &head, 4096, 0, page, entries, &trailer);
		ck_assert_msg(r == -EBADMSG, "byte %zu: %d", i, r);
		page[i] ^= 0x40;
	}
	ck_assert_int_eq(cmek_map_head_decode(page, &head), 0);
	ck_assert_int_eq(cmek_map_open(key, &head, 4096, 1, page, entries, &trailer), -EBADMSG); /* another place */
	free(page);
	cmek_secret_free(key);
}
END_TEST

/* Well sealed, but saying what no writer says: group 0 of a file of 100 groups and one field wrong. */
static const struct {
	const char *what;
	uint64_t group, plain_size, group_count;
	uint32_t plain_bytes;
	struct cmek_map_range a, b;
	int want;
} trailers[] = {
	{ "good", 0, 100 * 393216, 100, 393216, { 1, 5 }, { 7, 93 }, 0 },
	{ "no ranges", 0, 100 * 393216, 100, 393216, { 0, 0 }, { 0, 0 }, 0 },
	{ "size 0", 0, 0, 0, 0, { 0, 0 }, { 0, 0 }, -EBADMSG },
	{ "group count too high", 0, 100 * 393216, 101, 393216, { 0, 0 }, { 0, 0 }, -EBADMSG },
	{ "plain bytes of another size", 0, 100 * 393216, 100, 5, { 0, 0 }, { 0, 0 }, -EBADMSG },
	{ "size above the largest", 0, UINT64_MAX, 100, 393216, { 0, 0 }, { 0, 0 }, -EBADMSG },
	{ "group 0 absent", 0, 100 * 393216, 100, 393216, { 0, 5 }, { 0, 0 }, -EBADMSG },
	{ "ranges touch", 0, 100 * 393216, 100, 393216, { 1, 5 }, { 6, 3 }, -EBADMSG },
	{ "ranges descend", 0, 100 * 393216, 100, 393216, { 10, 5 }, { 2, 3 }, -EBADMSG },
	{ "range behind the end", 0, 100 * 393216, 100, 393216, { 99, 2 }, { 0, 0 }, -EBADMSG },
	{ "range that wraps", 0, 100 * 393216, 100, 393216, { UINT64_MAX, 2 }, { 0, 0 }, -EBADMSG },
	{ "no plain bytes in group 3", 3, 0, 0, 0, { 0, 0 }, { 0, 0 }, -EBADMSG },
	{ "too many plain bytes in group 3", 3, 0, 0, 393217, { 0, 0 }, { 0, 0 }, -EBADMSG },
	{ "good group 3", 3, 0, 0, 4711, { 0, 0 }, { 0, 0 }, 0 },
};

START_TEST(trailer_fields)
{
	struct cmek_map_trailer in = { 0 }, out;
	uint8_t entries[CMEK_MAP_ENTRIES_BYTES] = { 0 }, page[CMEK_MAP_BYTES], file_id[CMEK_FILE_ID_LEN] = { 1 };
	struct cmek_secret *key = content_key();
	struct cmek_seal_right right;
	struct cmek_map_head head;

	in.group = trailers[_i].group;
	in.plain_size = trailers[_i].plain_size;
	in.group_count = trailers[_i].group_count;
	in.plain_bytes = trailers[_i].plain_bytes;
	in.absent[0] = trailers[_i].a;
	in.absent[1] = trailers[_i].b;
	in.n_absent = (in.absent[0].count > 0) + (in.absent[1].count > 0);
	right_of(&right, 77);
	ck_assert_int_eq(cmek_map_seal(key, &right, file_id, entries, &in, page), 0);
	ck_assert_int_eq(cmek_map_head_decode(page, &head), 0);
	ck_assert_msg(cmek_map_open(key, &head, 4096, in.group, page, entries, &out) == trailers[_i].want, "%s",
		      trailers[_i].what);
	if (trailers[_i].want == 0)
		ck_assert(memcmp(&in, &out, sizeof(in)) == 0);
	cmek_secret_free(key);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("map_page");
	TCase *tc = tcase_create("map_page");
	SRunner *runner;
	int failed;

	tcase_add_loop_test(tc, blocks, 0, 2);
	tcase_add_test(tc, page_there_and_back);
	tcase_add_test(tc, later_page);
	tcase_add_test(tc, flipped_bytes);
	tcase_add_loop_test(tc, trailer_fields, 0, sizeof(trailers) / sizeof(*trailers));
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
