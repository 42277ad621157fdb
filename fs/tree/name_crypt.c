/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Encrypts and decrypts entry names, and knows the shapes that names in the store can have. Does no I/O and knows
 * neither where keys come from nor how directories get their ids.
 */
#include "config.h"

#include "fs/tree/name_crypt.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/crypto.h"
#include "base/text.h"

#define OWN_PREFIX ".cmekfs"
#define STORE_NAME_MAX 255 /* what a store takes as one name */

static bool is_b64url(const char *s, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		char c = s[i];

		if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
		      c == '_'))
			return false;
	}
	return true;
}

enum cmek_store_name_kind cmek_name_kind(const char *name)
{
	size_t n = strlen(name);

	if (strncmp(name, OWN_PREFIX, sizeof OWN_PREFIX - 1) == 0)
		return CMEK_STORE_NAME_OWN;
	if (n == CMEK_LONG_HASH_LEN + 2 && name[n - 2] == '.' && is_b64url(name, n - 2)) {
		if (name[n - 1] == 'n')
			return CMEK_STORE_NAME_LONG;
		if (name[n - 1] == 'l')
			return CMEK_STORE_NAME_LINK;
	}
	if (n >= CMEK_STORED_FORM_MIN && n <= STORE_NAME_MAX && n % 4 != 1 && is_b64url(name, n))
		return CMEK_STORE_NAME_SHORT;
	return CMEK_STORE_NAME_FOREIGN;
}

/* Of n bytes that hold no NUL. */
static bool is_plain_name(const char *plain, size_t n)
{
	if (n == 0 || n > CMEK_PLAIN_NAME_MAX || memchr(plain, '/', n))
		return false;
	return !(plain[0] == '.' && (n == 1 || (n == 2 && plain[1] == '.')));
}

int cmek_name_check(const char *plain)
{
	size_t n = strlen(plain);

	if (n > CMEK_PLAIN_NAME_MAX)
		return -ENAMETOOLONG;
	return is_plain_name(plain, n) ? 0 : -EINVAL;
}

static int long_hash(const char *form, size_t len, char ret_hash[CMEK_LONG_HASH_LEN + 1])
{
	struct iovec in = { .iov_base = (void *)form, .iov_len = len };
	uint8_t digest[CMEK_SHA256_LEN];
	int r = cmek_sha256(&in, 1, digest);

	if (r == 0)
		cmek_b64url_encode(digest, sizeof digest, ret_hash);
	return r;
}

int cmek_name_encrypt(const struct cmek_secret *name_key, const uint8_t dir_id[CMEK_DIR_ID_LEN], const char *plain,
		      struct cmek_stored_name *ret_name)
{
	struct iovec ad = { .iov_base = (void *)dir_id, .iov_len = CMEK_DIR_ID_LEN };
	uint8_t siv[CMEK_SIV_LEN + CMEK_PLAIN_NAME_MAX];
	size_t n = strlen(plain), len;
	char hash[CMEK_LONG_HASH_LEN + 1];
	int r;

	assert(n >= 1 && n <= CMEK_PLAIN_NAME_MAX);
	r = cmek_siv_seal(name_key, CMEK_KEY_NAME, &ad, 1, plain, n, siv);
	if (r)
		return r;
	cmek_b64url_encode(siv, CMEK_SIV_LEN + n, ret_name->form);
	len = CMEK_B64URL_LEN(CMEK_SIV_LEN + n);
	ret_name->link[0] = 0;
	if (len <= STORE_NAME_MAX) {
		memcpy(ret_name->entry, ret_name->form, len + 1);
		return 0;
	}
	r = long_hash(ret_name->form, len, hash);
	if (r)
		return r;
	memcpy(ret_name->entry, hash, CMEK_LONG_HASH_LEN);
	memcpy(ret_name->entry + CMEK_LONG_HASH_LEN, ".n", 3);
	cmek_name_link_of(ret_name->entry, ret_name->link);
	return 0;
}

int cmek_name_decrypt(const struct cmek_secret *name_key, const uint8_t dir_id[CMEK_DIR_ID_LEN], const char *form,
		      size_t len, char ret_plain[CMEK_PLAIN_NAME_MAX + 1])
{
	struct iovec ad = { .iov_base = (void *)dir_id, .iov_len = CMEK_DIR_ID_LEN };
	uint8_t siv[CMEK_SIV_LEN + CMEK_PLAIN_NAME_MAX];
	char plain[CMEK_PLAIN_NAME_MAX];
	long n = cmek_b64url_decode(form, len, siv, sizeof siv);
	size_t plain_len;

	if (n <= CMEK_SIV_LEN)
		return -EBADMSG;
	plain_len = (size_t)n - CMEK_SIV_LEN;
	if (cmek_siv_open(name_key, CMEK_KEY_NAME, &ad, 1, siv, (size_t)n, plain))
		return -EBADMSG;
	if (memchr(plain, 0, plain_len) || !is_plain_name(plain, plain_len))
		return -EBADMSG;
	memcpy(ret_plain, plain, plain_len);
	ret_plain[plain_len] = 0;
	return 0;
}

void cmek_name_link_of(const char *entry, char ret_link[CMEK_LONG_HASH_LEN + 3])
{
	memcpy(ret_link, entry, CMEK_LONG_HASH_LEN);
	memcpy(ret_link + CMEK_LONG_HASH_LEN, ".l", 3);
}

int cmek_name_long_check(const char *entry, const char *form, size_t len)
{
	char hash[CMEK_LONG_HASH_LEN + 1];
	int r;

	/* A form that fits into one name never was a long one. */
	if (len <= STORE_NAME_MAX || len > CMEK_STORED_FORM_MAX)
		return -EBADMSG;
	r = long_hash(form, len, hash);
	if (r)
		return r;
	return memcmp(entry, hash, CMEK_LONG_HASH_LEN) == 0 ? 0 : -EBADMSG;
}
