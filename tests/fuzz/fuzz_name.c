/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Names of entries in the store. The first byte says what the rest is: a name of any kind, a stored form, the plain name
 * in one that authenticates, or a long entry's name with the text of its link.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "base/crypto.h"
#include "base/text.h"
#include "fs/tree/name_crypt.h"
#include "tests/fuzz/key.h"

enum { ENTRY_LEN = CMEK_LONG_HASH_LEN + 2 };

static const uint8_t dir_id[CMEK_DIR_ID_LEN] = { 1, 2, 3 };
static struct cmek_secret *key;

static void fuzz_kind(const uint8_t *data, size_t size)
{
	char *name = fuzz_text(data, size), link[CMEK_LONG_HASH_LEN + 3];

	switch (cmek_name_kind(name)) {
	case CMEK_STORE_NAME_LONG:
		cmek_name_link_of(name, link);
		FUZZ_CHECK(cmek_name_kind(link) == CMEK_STORE_NAME_LINK);
		break;
	case CMEK_STORE_NAME_SHORT:
		FUZZ_CHECK(strlen(name) <= 255 && strchr(name, '/') == NULL && name[0] != '.');
		break;
	default:
		break;
	}
	free(name);
}

/* What opens is a name that can be made, and there is one way only to store it. */
static int open_form(const char *form, size_t len)
{
	char plain[CMEK_PLAIN_NAME_MAX + 1];
	struct cmek_stored_name stored;
	int r = cmek_name_decrypt(key, dir_id, form, len, plain);

	FUZZ_CHECK(r == 0 || r == -EBADMSG);
	if (r < 0)
		return r;
	FUZZ_CHECK(cmek_name_check(plain) == 0);
	FUZZ_CHECK(cmek_name_encrypt(key, dir_id, plain, &stored) == 0);
	FUZZ_CHECK(strlen(stored.form) == len && memcmp(stored.form, form, len) == 0);
	FUZZ_CHECK(cmek_name_kind(stored.entry) == (stored.link[0] ? CMEK_STORE_NAME_LONG : CMEK_STORE_NAME_SHORT));
	FUZZ_CHECK(!stored.link[0] || cmek_name_long_check(stored.entry, form, len) == 0);
	return 0;
}

/* Somebody with the key may have written anything at all as a name. */
static void fuzz_sealed(const uint8_t *data, size_t size)
{
	struct iovec ad = { (void *)(uintptr_t)dir_id, sizeof(dir_id) };
	uint8_t siv[CMEK_SIV_LEN + CMEK_PLAIN_NAME_MAX + 16];
	char form[CMEK_B64URL_LEN(sizeof(siv)) + 1], *plain;
	bool is_name;

	if (size > sizeof(siv) - CMEK_SIV_LEN || size < 1)
		return;
	plain = fuzz_text(data, size);
	FUZZ_CHECK(cmek_siv_seal(key, CMEK_KEY_NAME, &ad, 1, data, size, siv) == 0);
	cmek_b64url_encode(siv, CMEK_SIV_LEN + size, form);
	is_name = strlen(plain) == size && cmek_name_check(plain) == 0;
	FUZZ_CHECK((open_form(form, strlen(form)) == 0) == is_name);
	free(plain);
}

static void fuzz_long(const uint8_t *data, size_t size)
{
	char entry[ENTRY_LEN + 1];
	int r;

	if (size < ENTRY_LEN)
		return;
	memcpy(entry, data, ENTRY_LEN);
	entry[ENTRY_LEN] = '\0';
	r = cmek_name_long_check(entry, (const char *)data + ENTRY_LEN, size - ENTRY_LEN);
	FUZZ_CHECK(r == 0 || r == -EBADMSG);
	if (r == 0)
		(void)open_form((const char *)data + ENTRY_LEN, size - ENTRY_LEN);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	if (key == NULL)
		key = fuzz_key_new(CMEK_KEY_NAME, 64);
	switch (data[0]) {
	case 'k':
		fuzz_kind(data + 1, size - 1);
		break;
	case 'f':
		(void)open_form((const char *)data + 1, size - 1);
		break;
	case 's':
		fuzz_sealed(data + 1, size - 1);
		break;
	case 'l':
		fuzz_long(data + 1, size - 1);
		break;
	default:
		break;
	}
	return 0;
}
