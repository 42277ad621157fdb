/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Extended attributes in the store. The first byte says what the rest is: the name of one, its name and its value, or what
 * is in a value that authenticates, under the name that it should have or under another one.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "fs/tree/xattr_crypt.h"
#include "tests/fuzz/key.h"

enum { DEK = 0x0102, VALUE_MAX = 65536 };

static const char other_name[] = "user.cmekfs.AAAAAAAAAAAAAAAAAAAAAA.0102";
static const struct cmek_seal_right right = { .dek = DEK, .salt = { 1 }, .first = 7, .epoch = 1 };
static struct cmek_secret *key, *name_key;

static void fuzz_name(const uint8_t *data, size_t size)
{
	char *name = fuzz_text(data, size);
	uint16_t dek = 0;

	if (cmek_xattr_name_parse(name, &dek))
		FUZZ_CHECK(strlen(name) == CMEK_XATTR_STORED_NAME_LEN);
	free(name);
}

/* A copy of the value is opened. What opens comes out again when it is sealed anew. */
static int open_value(const char *stored, const uint8_t *data, size_t size)
{
	uint8_t *copy = (uint8_t *)fuzz_text(data, size), *again;
	char name[CMEK_XATTR_NAME_MAX + 1];
	const uint8_t *value = NULL;
	size_t len = 0;
	int r = cmek_xattr_open(key, name_key, stored, copy, size, name, &value, &len);

	FUZZ_CHECK(r == 0 || r == -EBADMSG);
	if (r == 0) {
		FUZZ_CHECK(value + len == copy + size && CMEK_XATTR_OVERHEAD(strlen(name)) + len == size);
		again = malloc(size);
		FUZZ_CHECK(again != NULL);
		FUZZ_CHECK(cmek_xattr_seal(key, &right, stored, name, value, len, again) == 0);
		FUZZ_CHECK(memcmp(again, data, CMEK_SALT_LEN) != 0 || memcmp(again, data, size) == 0 ||
			   cmek_load48(data + CMEK_SALT_LEN) != right.first);
		free(again);
	}
	free(copy);
	return r;
}

static void fuzz_stored(const uint8_t *data, size_t size)
{
	char *stored;

	if (size < CMEK_XATTR_STORED_NAME_LEN)
		return;
	stored = fuzz_text(data, CMEK_XATTR_STORED_NAME_LEN);
	(void)open_value(stored, data + CMEK_XATTR_STORED_NAME_LEN, size - CMEK_XATTR_STORED_NAME_LEN);
	free(stored);
}

/* plain: the length of the name, the name, the value. */
static void fuzz_sealed(const uint8_t *plain, size_t size, bool moved)
{
	size_t name_len = size >= 2 ? cmek_load16(plain) : 0;
	bool named = size >= 2 && name_len <= size - 2 && name_len <= CMEK_XATTR_NAME_MAX &&
		     memchr(plain + 2, 0, name_len) == NULL;
	char stored[CMEK_XATTR_STORED_NAME_LEN + 1], *name = fuzz_text(plain + 2, named ? name_len : 0);
	struct iovec aad = { stored, CMEK_XATTR_STORED_NAME_LEN };
	uint8_t nonce[CMEK_NONCE_LEN], *data = calloc(1, CMEK_XATTR_HEAD_LEN + size);

	FUZZ_CHECK(data != NULL);
	FUZZ_CHECK(cmek_xattr_name(name_key, DEK, name, stored) == 0);
	if (moved)
		memcpy(stored, other_name, sizeof(stored));
	memcpy(data, right.salt, CMEK_SALT_LEN);
	cmek_store48(data + CMEK_SALT_LEN, right.first);
	cmek_keyring_nonce(CMEK_DOMAIN_XATTR, right.first, nonce);
	FUZZ_CHECK(cmek_gcm_seal(key, CMEK_KEY_XATTR, nonce, &aad, 1, plain, size, data + CMEK_XATTR_HEAD_LEN,
				 data + CMEK_SALT_LEN + 6) == 0);
	FUZZ_CHECK((open_value(stored, data, CMEK_XATTR_HEAD_LEN + size) == 0) == (named && !moved));
	free(data);
	free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > VALUE_MAX)
		return 0;
	if (key == NULL) {
		key = fuzz_key_new(CMEK_KEY_XATTR, 32);
		name_key = fuzz_key_new(CMEK_KEY_XATTR_NAME, 32);
	}
	switch (data[0]) {
	case 'n':
		fuzz_name(data + 1, size - 1);
		break;
	case 'v':
		fuzz_stored(data + 1, size - 1);
		break;
	case 's':
		fuzz_sealed(data + 1, size - 1, false);
		break;
	case 'm':
		fuzz_sealed(data + 1, size - 1, true);
		break;
	default:
		break;
	}
	return 0;
}
