/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Encrypts and decrypts extended attributes. Does no I/O and knows no inodes: an attribute is bound to its name only.
 */
#include "config.h"

#include "fs/tree/xattr_crypt.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "base/text.h"

#define PREFIX "user.cmekfs."
#define PREFIX_LEN (sizeof PREFIX - 1)
#define MAC_LEN 16
#define MAC_TEXT_LEN 22

int cmek_xattr_name(const struct cmek_secret *name_key, uint16_t dek, const char *name,
		    char ret_stored[CMEK_XATTR_STORED_NAME_LEN + 1])
{
	struct iovec piece = { (void *)(uintptr_t)name, strlen(name) };
	char text[CMEK_B64URL_LEN(MAC_LEN) + 1];
	uint8_t mac[CMEK_SHA256_LEN];
	int r = cmek_hmac(name_key, CMEK_KEY_XATTR_NAME, &piece, 1, mac);

	if (r)
		return r;
	cmek_b64url_encode(mac, MAC_LEN, text);
	snprintf(ret_stored, CMEK_XATTR_STORED_NAME_LEN + 1, PREFIX "%s.%04x", text, dek);
	return 0;
}

bool cmek_xattr_name_parse(const char *stored, uint16_t *ret_dek)
{
	const char *digits = stored + PREFIX_LEN + MAC_TEXT_LEN + 1;
	uint8_t mac[MAC_LEN], dek[2];

	if (strlen(stored) != CMEK_XATTR_STORED_NAME_LEN || memcmp(stored, PREFIX, PREFIX_LEN) != 0 || digits[-1] != '.' ||
	    strspn(digits, "0123456789abcdef") != 4)
		return false;
	if (cmek_b64url_decode(stored + PREFIX_LEN, MAC_TEXT_LEN, mac, sizeof mac) != MAC_LEN ||
	    cmek_hex_decode(digits, 4, dek, sizeof dek) != 2)
		return false;
	*ret_dek = (uint16_t)(dek[0] << 8 | dek[1]);
	return true;
}

int cmek_xattr_seal(const struct cmek_secret *key, const struct cmek_seal_right *right, const char *stored,
		    const char *name, const void *value, size_t len, uint8_t *out)
{
	struct iovec aad = { (void *)(uintptr_t)stored, strlen(stored) };
	size_t name_len = strlen(name);
	uint8_t nonce[CMEK_NONCE_LEN], *text = out + CMEK_XATTR_HEAD_LEN;

	assert(name_len <= CMEK_XATTR_NAME_MAX);
	memcpy(out, right->salt, CMEK_SALT_LEN);
	cmek_store48(out + CMEK_SALT_LEN, right->first);
	cmek_store16(text, (uint16_t)name_len);
	memcpy(text + 2, name, name_len);
	if (len > 0)
		memcpy(text + 2 + name_len, value, len);
	cmek_keyring_nonce(CMEK_DOMAIN_XATTR, right->first, nonce);
	return cmek_gcm_seal(key, CMEK_KEY_XATTR, nonce, &aad, 1, text, 2 + name_len + len, text,
			     out + CMEK_SALT_LEN + 6);
}

int cmek_xattr_open(const struct cmek_secret *key, const struct cmek_secret *name_key, const char *stored, uint8_t *data,
		    size_t len, char ret_name[CMEK_XATTR_NAME_MAX + 1], const uint8_t **ret_value, size_t *ret_len)
{
	struct iovec aad = { (void *)(uintptr_t)stored, strlen(stored) };
	uint8_t nonce[CMEK_NONCE_LEN], *text = data + CMEK_XATTR_HEAD_LEN;
	char again[CMEK_XATTR_STORED_NAME_LEN + 1];
	size_t name_len, text_len;
	uint16_t dek;
	int r;

	if (len < CMEK_XATTR_HEAD_LEN + 2 || !cmek_xattr_name_parse(stored, &dek))
		return -EBADMSG;
	text_len = len - CMEK_XATTR_HEAD_LEN;
	cmek_keyring_nonce(CMEK_DOMAIN_XATTR, cmek_load48(data + CMEK_SALT_LEN), nonce);
	r = cmek_gcm_open(key, CMEK_KEY_XATTR, nonce, &aad, 1, text, text_len, text, data + CMEK_SALT_LEN + 6);
	if (r)
		return r;
	name_len = cmek_load16(text);
	if (name_len > text_len - 2 || name_len > CMEK_XATTR_NAME_MAX || memchr(text + 2, 0, name_len))
		return -EBADMSG;
	memcpy(ret_name, text + 2, name_len);
	ret_name[name_len] = 0;
	r = cmek_xattr_name(name_key, dek, ret_name, again);
	if (r)
		return r;
	if (strcmp(again, stored) != 0)
		return -EBADMSG;
	*ret_value = text + 2 + name_len;
	*ret_len = text_len - 2 - name_len;
	return 0;
}
