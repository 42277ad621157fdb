/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Targets of symlinks: the vectors and the table of lengths of doc/format.md section 4.3, and damaged texts. */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/tree/symlink_crypt.h"
#include "tests/unit/unit.h"
#include "tests/unit/vectors.h"

static struct cmek_secret *key;
static char e[CMEK_SYMLINK_E_MAX + 1], text[CMEK_SYMLINK_TEXT_MAX + 1];

static void setup(void)
{
	uint8_t *bytes = vector_get("symlink_key", NULL);

	cmek_secret_allow_unlocked();
	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_SYMLINK, bytes, 64, &key, NULL), 0);
	free(bytes);
}

static void teardown(void)
{
	cmek_secret_free(key);
}

/* E put together again from the text and the pieces that the codec says follow. */
static void check_whole(const struct cmek_symlink_head *head, uint32_t symlink_max, size_t e_len)
{
	char name[CMEK_SYMLINK_PIECE_NAME], want[CMEK_SYMLINK_PIECE_NAME];
	size_t at = head->e_here, off, len;
	unsigned k, n = cmek_symlink_n_pieces(head, symlink_max);

	ck_assert_uint_eq(head->e_len, e_len);
	ck_assert_int_eq(memcmp(head->e, e, head->e_here), 0);
	for (k = 1; k <= n; k++) {
		cmek_symlink_piece(head, symlink_max, k, name, &off, &len);
		snprintf(want, sizeof want, "%s.%u", head->id, k);
		ck_assert_str_eq(name, want);
		ck_assert_uint_eq(off, at);
		ck_assert_uint_ge(len, 1);
		ck_assert_uint_le(len, symlink_max);
		at += len;
	}
	ck_assert_uint_eq(at, e_len);
}

START_TEST(vector_short)
{
	uint8_t *nonce = vector_get("symlink_nonce", NULL);
	char target[CMEK_SYMLINK_TARGET_MAX], *want = (char *)vector_get("symlink_target", NULL);
	struct cmek_symlink_head head;
	size_t e_len, len;

	ck_assert_int_eq(cmek_symlink_encrypt_with(key, nonce, want, strlen(want), e, &e_len), 0);
	cmek_symlink_text(1, e, e_len, 4095, NULL, text);
	vector_check("symlink_text", text, strlen(text));
	ck_assert_int_eq(cmek_symlink_parse(text, strlen(text), 4095, &head), 0);
	ck_assert_uint_eq(head.dek, 1);
	ck_assert(!head.split);
	ck_assert_uint_eq(cmek_symlink_plain_len(head.e_len), strlen(want));
	ck_assert_int_eq(cmek_symlink_decrypt(key, head.e, head.e_len, target, &len), 0);
	ck_assert_uint_eq(len, strlen(want));
	ck_assert_int_eq(memcmp(target, want, len), 0);
	free(nonce);
	free(want);
}
END_TEST

START_TEST(vector_split)
{
	uint8_t *nonce = vector_get("symlink_nonce", NULL), *id = vector_get("symlink_long_id", NULL);
	char *want = (char *)vector_get("symlink_long_target", NULL), name[CMEK_SYMLINK_PIECE_NAME];
	struct cmek_symlink_head head;
	size_t e_len, off, len;

	ck_assert_int_eq(cmek_symlink_encrypt_with(key, nonce, want, strlen(want), e, &e_len), 0);
	cmek_symlink_text(1, e, e_len, 1023, id, text);
	vector_check("symlink_long_text_1023", text, strlen(text));
	ck_assert_int_eq(cmek_symlink_parse(text, strlen(text), 1023, &head), 0);
	ck_assert(head.split);
	ck_assert_uint_eq(cmek_symlink_n_pieces(&head, 1023), 1);
	cmek_symlink_piece(&head, 1023, 1, name, &off, &len);
	vector_check("symlink_long_rest_1023", e + off, len);
	free(nonce);
	free(id);
	free(want);
}
END_TEST

/* The table of the document: n target bytes, length of E, of the text, pieces, and length of the last one. */
static const struct {
	size_t target, e;
	uint32_t symlink_max;
	size_t text;
	unsigned pieces;
	size_t last;
} lengths[] = {
	{ 1, 44, 4095, 50, 0, 0 },
	{ 1, 44, 1023, 50, 0, 0 },
	{ 730, 1016, 1023, 1022, 0, 0 },
	{ 731, 1018, 4095, 1024, 0, 0 },
	{ 731, 1018, 1023, 1023, 1, 27 },
	{ 3034, 4088, 4095, 4094, 0, 0 },
	{ 3034, 4088, 1023, 1023, 4, 28 },
	{ 4095, 5503, 4095, 4095, 1, 1440 },
	{ 4095, 5503, 1023, 1023, 5, 420 },
};

START_TEST(table)
{
	char *target = malloc(lengths[_i].target), back[CMEK_SYMLINK_TARGET_MAX], name[CMEK_SYMLINK_PIECE_NAME];
	uint32_t max = lengths[_i].symlink_max;
	struct cmek_symlink_head head;
	size_t e_len, off, len;

	memset(target, 't', lengths[_i].target);
	ck_assert_int_eq(cmek_symlink_encrypt(key, target, lengths[_i].target, e, &e_len), 0);
	ck_assert_uint_eq(e_len, lengths[_i].e);
	ck_assert_uint_eq(cmek_symlink_plain_len(e_len), lengths[_i].target);
	cmek_symlink_text(0xabcd, e, e_len, max, NULL, text);
	ck_assert_uint_eq(strlen(text), lengths[_i].text);
	ck_assert_int_eq(cmek_symlink_parse(text, strlen(text), max, &head), 0);
	ck_assert_uint_eq(head.dek, 0xabcd);
	ck_assert_uint_eq(cmek_symlink_n_pieces(&head, max), lengths[_i].pieces);
	if (lengths[_i].pieces) {
		cmek_symlink_piece(&head, max, lengths[_i].pieces, name, &off, &len);
		ck_assert_uint_eq(len, lengths[_i].last);
	}
	check_whole(&head, max, e_len);
	ck_assert_int_eq(cmek_symlink_decrypt(key, e, e_len, back, &len), 0);
	ck_assert_uint_eq(len, lengths[_i].target);
	ck_assert_int_eq(memcmp(target, back, len), 0);
	free(target);
}
END_TEST

START_TEST(every_length)
{
	char target[CMEK_SYMLINK_TARGET_MAX];
	struct cmek_symlink_head head;
	uint32_t max = _i ? 4095 : 1023;
	size_t n, e_len;

	memset(target, 'x', sizeof target);
	for (n = 1; n <= CMEK_SYMLINK_TARGET_MAX; n += n % 3 == 0 ? 7 : 1) {
		ck_assert_int_eq(cmek_symlink_encrypt(key, target, n, e, &e_len), 0);
		cmek_symlink_text(7, e, e_len, max, NULL, text);
		ck_assert_uint_le(strlen(text), max);
		ck_assert_int_eq(cmek_symlink_parse(text, strlen(text), max, &head), 0);
		ck_assert_uint_eq(cmek_symlink_plain_len(head.e_len), n);
		check_whole(&head, max, e_len);
	}
}
END_TEST

START_TEST(never_the_same_twice)
{
	char other[CMEK_SYMLINK_E_MAX + 1];
	size_t e_len;

	ck_assert_int_eq(cmek_symlink_encrypt(key, "same", 4, e, &e_len), 0);
	ck_assert_int_eq(cmek_symlink_encrypt(key, "same", 4, other, &e_len), 0);
	ck_assert_str_ne(e, other);
}
END_TEST

START_TEST(tampered)
{
	char back[CMEK_SYMLINK_TARGET_MAX];
	size_t e_len, i, len;

	ck_assert_int_eq(cmek_symlink_encrypt(key, "/etc/passwd", 11, e, &e_len), 0);
	for (i = 0; i < e_len; i++) {
		char was = e[i];

		e[i] = was == 'A' ? 'B' : 'A';
		ck_assert_int_eq(cmek_symlink_decrypt(key, e, e_len, back, &len), -EBADMSG);
		e[i] = was;
	}
	for (i = 0; i < e_len; i++)
		ck_assert_int_eq(cmek_symlink_decrypt(key, e, i, back, &len), -EBADMSG);
	ck_assert_int_eq(cmek_symlink_encrypt(key, "a\0b", 3, e, &e_len), 0);
	ck_assert_int_eq(cmek_symlink_decrypt(key, e, e_len, back, &len), -EBADMSG);
}
END_TEST

#define E44 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

static const struct {
	const char *text;
	int want;
} texts[] = {
	{ "1001f-" E44, 0 },
	{ "", -EBADMSG },
	{ "1", -EBADMSG },
	{ "1001f-", -EBADMSG },
	{ "1001f-AAAA", -EBADMSG },              /* too short to be an E */
	{ "2001f-" E44, -EBADMSG },              /* another version */
	{ "1001F-" E44, -EBADMSG },              /* upper case */
	{ "1 01f-" E44, -EBADMSG },
	{ "1001f:" E44, -EBADMSG },
	{ "1001f-" E44 "A", -EBADMSG },          /* 45 characters are no whole bytes */
	{ "1001f+" E44, -EBADMSG },              /* split, and shorter than a full link */
	{ "/etc/passwd", -EBADMSG },
};

START_TEST(parse)
{
	struct cmek_symlink_head head;

	ck_assert_int_eq(cmek_symlink_parse(texts[_i].text, strlen(texts[_i].text), 1023, &head), texts[_i].want);
}
END_TEST

START_TEST(parse_split)
{
	struct cmek_symlink_head head;
	char target[4095], was;
	size_t e_len, i;

	memset(target, 'x', sizeof target);
	ck_assert_int_eq(cmek_symlink_encrypt(key, target, sizeof target, e, &e_len), 0);
	cmek_symlink_text(1, e, e_len, 1023, NULL, text);
	ck_assert_int_eq(cmek_symlink_parse(text, 1023, 1023, &head), 0);
	ck_assert_int_eq(cmek_symlink_parse(text, 1022, 1023, &head), -EBADMSG);
	ck_assert_int_eq(cmek_symlink_parse(text, 1023, 4095, &head), -EBADMSG);
	/* A link id with a slash, or a dot, never becomes a path. */
	for (i = 6; i < 6 + CMEK_SYMLINK_ID_LEN; i++) {
		was = text[i];
		text[i] = i % 2 ? '/' : '.';
		ck_assert_int_eq(cmek_symlink_parse(text, 1023, 1023, &head), -EBADMSG);
		text[i] = was;
	}
	/* A length that needs no second piece, and one that no target has. */
	memcpy(text + 28, "03df", 4);
	ck_assert_int_eq(cmek_symlink_parse(text, 1023, 1023, &head), -EBADMSG);
	memcpy(text + 28, "ffff", 4);
	ck_assert_int_eq(cmek_symlink_parse(text, 1023, 1023, &head), -EBADMSG);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("symlink_crypt");
	TCase *tcase = tcase_create("symlink_crypt");

	tcase_set_timeout(tcase, 60);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, vector_short);
	tcase_add_test(tcase, vector_split);
	tcase_add_loop_test(tcase, table, 0, UNIT_ROWS(lengths));
	tcase_add_loop_test(tcase, every_length, 0, 2);
	tcase_add_test(tcase, never_the_same_twice);
	tcase_add_test(tcase, tampered);
	tcase_add_loop_test(tcase, parse, 0, UNIT_ROWS(texts));
	tcase_add_test(tcase, parse_split);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
