/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Names and their stored forms: the vectors and lengths of doc/format.md section 4.2, and every way to be no name. */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/text.h"
#include "fs/tree/name_crypt.h"
#include "tests/unit/unit.h"
#include "tests/unit/vectors.h"

static struct cmek_secret *key;
static uint8_t *dir_id;

static void setup(void)
{
	uint8_t *bytes = vector_get("name_key", NULL);

	cmek_secret_allow_unlocked();
	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_NAME, bytes, 64, &key, NULL), 0);
	free(bytes);
	dir_id = vector_get("dir_id", NULL);
}

static void teardown(void)
{
	cmek_secret_free(key);
	free(dir_id);
}

static const struct {
	const char *plain, *stored, *hash;
} vector_names[] = {
	{ "name", "name_stored", NULL },
	{ "name_175", "name_175_stored", NULL },
	{ "name_176", "name_176_stored", "name_176_h" },
	{ "name_255", "name_255_stored", "name_255_h" },
};

START_TEST(vectors)
{
	struct cmek_stored_name name;
	char *plain = (char *)vector_get(vector_names[_i].plain, NULL), back[CMEK_PLAIN_NAME_MAX + 1];

	ck_assert_int_eq(cmek_name_encrypt(key, dir_id, plain, &name), 0);
	vector_check(vector_names[_i].stored, name.form, strlen(name.form));
	if (vector_names[_i].hash) {
		vector_check(vector_names[_i].hash, name.link, CMEK_LONG_HASH_LEN);
		ck_assert_str_eq(name.link + CMEK_LONG_HASH_LEN, ".l");
		ck_assert_int_eq(memcmp(name.link, name.entry, CMEK_LONG_HASH_LEN), 0);
		ck_assert_str_eq(name.entry + CMEK_LONG_HASH_LEN, ".n");
		ck_assert_int_eq(cmek_name_long_check(name.entry, name.form, strlen(name.form)), 0);
		ck_assert_int_eq(cmek_name_kind(name.entry), CMEK_STORE_NAME_LONG);
		ck_assert_int_eq(cmek_name_kind(name.link), CMEK_STORE_NAME_LINK);
	} else {
		ck_assert_str_eq(name.entry, name.form);
		ck_assert_str_eq(name.link, "");
		ck_assert_int_eq(cmek_name_kind(name.entry), CMEK_STORE_NAME_SHORT);
	}
	ck_assert_int_eq(cmek_name_decrypt(key, dir_id, name.form, strlen(name.form), back), 0);
	ck_assert_str_eq(back, plain);
	free(plain);
}
END_TEST

START_TEST(every_length)
{
	char plain[CMEK_PLAIN_NAME_MAX + 1], back[CMEK_PLAIN_NAME_MAX + 1], link[CMEK_LONG_HASH_LEN + 3];
	struct cmek_stored_name name;
	size_t n;

	for (n = 1; n <= CMEK_PLAIN_NAME_MAX; n++) {
		memset(plain, (int)(128 + n % 100), n);
		plain[n] = 0;
		ck_assert_int_eq(cmek_name_check(plain), 0);
		ck_assert_int_eq(cmek_name_encrypt(key, dir_id, plain, &name), 0);
		ck_assert_uint_eq(strlen(name.form), ((n + 16) * 4 + 2) / 3);
		ck_assert_int_eq(name.link[0] != 0, n > 175);
		if (n > 175) {
			cmek_name_link_of(name.entry, link);
			ck_assert_str_eq(link, name.link);
		}
		ck_assert_int_eq(cmek_name_decrypt(key, dir_id, name.form, strlen(name.form), back), 0);
		ck_assert_str_eq(back, plain);
	}
}
END_TEST

START_TEST(every_byte)
{
	char plain[3] = { 0 }, back[CMEK_PLAIN_NAME_MAX + 1];
	struct cmek_stored_name name;
	int c;

	for (c = 1; c < 256; c++) {
		plain[0] = plain[1] = (char)c;
		if (c == '/' || c == '.')
			continue;
		ck_assert_int_eq(cmek_name_encrypt(key, dir_id, plain, &name), 0);
		ck_assert_int_eq(cmek_name_decrypt(key, dir_id, name.form, strlen(name.form), back), 0);
		ck_assert_str_eq(back, plain);
	}
}
END_TEST

START_TEST(tampered)
{
	char plain[CMEK_PLAIN_NAME_MAX + 1], form[CMEK_STORED_FORM_MAX + 1];
	struct cmek_stored_name name;
	uint8_t other_id[CMEK_DIR_ID_LEN];
	size_t i, len;

	ck_assert_int_eq(cmek_name_encrypt(key, dir_id, "hello", &name), 0);
	len = strlen(name.form);
	for (i = 0; i < len; i++) {
		memcpy(form, name.form, len + 1);
		form[i] = form[i] == 'A' ? 'B' : 'A';
		ck_assert_int_eq(cmek_name_decrypt(key, dir_id, form, len, plain), -EBADMSG);
	}
	for (i = 0; i < len; i++)
		ck_assert_int_eq(cmek_name_decrypt(key, dir_id, name.form, i, plain), -EBADMSG);
	/* The name of another directory. */
	memcpy(other_id, dir_id, sizeof other_id);
	other_id[15] ^= 1;
	ck_assert_int_eq(cmek_name_decrypt(key, other_id, name.form, len, plain), -EBADMSG);
	/* A form of a long name checks against its own hash only. */
	memset(plain, 'x', 200);
	plain[200] = 0;
	ck_assert_int_eq(cmek_name_encrypt(key, dir_id, plain, &name), 0);
	len = strlen(name.form);
	ck_assert_int_eq(cmek_name_long_check(name.entry, name.form, len - 1), -EBADMSG);
	name.entry[3] ^= 1;
	ck_assert_int_eq(cmek_name_long_check(name.entry, name.form, len), -EBADMSG);
	ck_assert_int_eq(cmek_name_long_check(name.entry, name.form, 255), -EBADMSG);
}
END_TEST

/* Well encrypted, and yet no name: nothing of ours writes it, so it must not get out. */
static const struct {
	const char *bytes;
	size_t len;
} no_names[] = {
	{ ".", 1 }, { "..", 2 }, { "a/b", 3 }, { "/", 1 }, { "a\0b", 3 }, { "\0", 1 },
};

START_TEST(sealed_no_names)
{
	struct iovec ad = { dir_id, CMEK_DIR_ID_LEN };
	uint8_t siv[64];
	char form[128], plain[CMEK_PLAIN_NAME_MAX + 1];

	ck_assert_int_eq(cmek_siv_seal(key, CMEK_KEY_NAME, &ad, 1, no_names[_i].bytes, no_names[_i].len, siv), 0);
	cmek_b64url_encode(siv, 16 + no_names[_i].len, form);
	ck_assert_int_eq(cmek_name_decrypt(key, dir_id, form, strlen(form), plain), -EBADMSG);
}
END_TEST

static const struct {
	const char *name;
	int want;
} checks[] = {
	{ "a", 0 }, { "...", 0 }, { ".a", 0 }, { "a b\n", 0 }, { "", -EINVAL }, { ".", -EINVAL }, { "..", -EINVAL },
	{ "a/b", -EINVAL }, { "/", -EINVAL },
};

START_TEST(check_names)
{
	char plain[300];

	ck_assert_int_eq(cmek_name_check(checks[_i].name), checks[_i].want);
	memset(plain, 'n', sizeof plain);
	plain[256] = 0;
	ck_assert_int_eq(cmek_name_check(plain), -ENAMETOOLONG);
	plain[255] = 0;
	ck_assert_int_eq(cmek_name_check(plain), 0);
}
END_TEST

static const struct {
	const char *name;
	enum cmek_store_name_kind want;
} kinds[] = {
	{ ".cmekfs", CMEK_STORE_NAME_OWN },
	{ ".cmekfs.dir", CMEK_STORE_NAME_OWN },
	{ ".cmekfs.tmp", CMEK_STORE_NAME_OWN },
	{ ".", CMEK_STORE_NAME_FOREIGN },
	{ "..", CMEK_STORE_NAME_FOREIGN },
	{ "lost+found", CMEK_STORE_NAME_FOREIGN },
	{ "README", CMEK_STORE_NAME_FOREIGN },
	{ "abcdefghijklmnopqrstuvw", CMEK_STORE_NAME_SHORT },
	{ "abcdefghijklmnopqrstuv", CMEK_STORE_NAME_FOREIGN },
	{ "abcdefghijklmnopqrstuvwxy", CMEK_STORE_NAME_FOREIGN }, /* 25 characters are no whole bytes */
	{ "abcdefghijklmnopqrstu.w", CMEK_STORE_NAME_FOREIGN },
	{ "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmno-_.n", CMEK_STORE_NAME_LONG },
	{ "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmno-_.l", CMEK_STORE_NAME_LINK },
	{ "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmno-_.x", CMEK_STORE_NAME_FOREIGN },
	{ "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmno-.n", CMEK_STORE_NAME_FOREIGN },
};

START_TEST(kind)
{
	ck_assert_int_eq(cmek_name_kind(kinds[_i].name), kinds[_i].want);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("name_crypt");
	TCase *tcase = tcase_create("name_crypt");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_loop_test(tcase, vectors, 0, UNIT_ROWS(vector_names));
	tcase_add_test(tcase, every_length);
	tcase_add_test(tcase, every_byte);
	tcase_add_test(tcase, tampered);
	tcase_add_loop_test(tcase, sealed_no_names, 0, UNIT_ROWS(no_names));
	tcase_add_loop_test(tcase, check_names, 0, UNIT_ROWS(checks));
	tcase_add_loop_test(tcase, kind, 0, UNIT_ROWS(kinds));
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
