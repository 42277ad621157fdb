/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Encrypts and decrypts the targets of symbolic links, and splits what is longer than a symlink of the store can be.
 * Does no I/O: the pieces are made and read in tree_symlink.c.
 */
#include "config.h"

#include "fs/tree/symlink_crypt.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/crypto.h"
#include "base/text.h"

#define NONCE_LEN 16
#define OVERHEAD (NONCE_LEN + CMEK_SIV_LEN)
#define HEAD_LEN 6   /* "1DDDD-" */
#define SPLIT_LEN 32 /* "1DDDD+", link id, "LLLL" */
#define DOMAIN "symlink"

static void ad_of(const uint8_t nonce[NONCE_LEN], struct iovec ad[2])
{
	ad[0].iov_base = (void *)DOMAIN;
	ad[0].iov_len = sizeof DOMAIN - 1;
	ad[1].iov_base = (void *)nonce;
	ad[1].iov_len = NONCE_LEN;
}

int cmek_symlink_encrypt_with(const struct cmek_secret *key, const uint8_t nonce[16], const void *target, size_t len,
			      char ret_e[CMEK_SYMLINK_E_MAX + 1], size_t *ret_e_len)
{
	uint8_t raw[OVERHEAD + CMEK_SYMLINK_TARGET_MAX];
	struct iovec ad[2];
	int r;

	assert(len >= 1 && len <= CMEK_SYMLINK_TARGET_MAX);
	memcpy(raw, nonce, NONCE_LEN);
	ad_of(raw, ad);
	r = cmek_siv_seal(key, CMEK_KEY_SYMLINK, ad, 2, target, len, raw + NONCE_LEN);
	if (r)
		return r;
	cmek_b64url_encode(raw, OVERHEAD + len, ret_e);
	*ret_e_len = CMEK_B64URL_LEN(OVERHEAD + len);
	return 0;
}

int cmek_symlink_encrypt(const struct cmek_secret *key, const void *target, size_t len,
			 char ret_e[CMEK_SYMLINK_E_MAX + 1], size_t *ret_e_len)
{
	uint8_t nonce[NONCE_LEN];

	cmek_random(nonce, sizeof nonce);
	return cmek_symlink_encrypt_with(key, nonce, target, len, ret_e, ret_e_len);
}

int cmek_symlink_decrypt(const struct cmek_secret *key, const char *e, size_t e_len,
			 char ret_target[CMEK_SYMLINK_TARGET_MAX], size_t *ret_len)
{
	uint8_t raw[OVERHEAD + CMEK_SYMLINK_TARGET_MAX];
	struct iovec ad[2];
	long n = cmek_b64url_decode(e, e_len, raw, sizeof raw);
	size_t len;

	if (n <= OVERHEAD)
		return -EBADMSG;
	len = (size_t)n - OVERHEAD;
	ad_of(raw, ad);
	if (cmek_siv_open(key, CMEK_KEY_SYMLINK, ad, 2, raw + NONCE_LEN, (size_t)n - NONCE_LEN, ret_target))
		return -EBADMSG;
	if (memchr(ret_target, 0, len))
		return -EBADMSG;
	*ret_len = len;
	return 0;
}

size_t cmek_symlink_plain_len(size_t e_len)
{
	size_t n = CMEK_B64URL_DECODED(e_len);

	return e_len % 4 != 1 && e_len <= CMEK_SYMLINK_E_MAX && n > OVERHEAD ? n - OVERHEAD : 0;
}

void cmek_symlink_text(uint16_t dek, const char *e, size_t e_len, uint32_t symlink_max, const uint8_t id[16],
		       char *ret_text)
{
	char id_text[CMEK_SYMLINK_ID_LEN + 1];
	uint8_t new_id[16];

	assert(symlink_max >= CMEK_SYMLINK_TEXT_MIN && symlink_max <= CMEK_SYMLINK_TEXT_MAX);
	if (HEAD_LEN + e_len <= symlink_max) {
		snprintf(ret_text, (size_t)symlink_max + 1, "1%04x-%s", dek, e);
		return;
	}
	if (!id) {
		cmek_random(new_id, sizeof new_id);
		id = new_id;
	}
	cmek_b64url_encode(id, 16, id_text);
	snprintf(ret_text, (size_t)symlink_max + 1, "1%04x+%s%04x%.*s", dek, id_text, (unsigned)e_len,
		 (int)(symlink_max - SPLIT_LEN), e);
}

/* Four lower-case hexadecimal digits, no other form. */
static int parse_hex4(const char *s, unsigned *ret_value)
{
	unsigned v = 0, i;

	for (i = 0; i < 4; i++) {
		if (s[i] >= '0' && s[i] <= '9')
			v = v << 4 | (unsigned)(s[i] - '0');
		else if (s[i] >= 'a' && s[i] <= 'f')
			v = v << 4 | (unsigned)(s[i] - 'a' + 10);
		else
			return -EBADMSG;
	}
	*ret_value = v;
	return 0;
}

static int parse_split(const char *text, size_t len, uint32_t symlink_max, struct cmek_symlink_head *head)
{
	uint8_t id[16];
	unsigned e_len;

	/* The link is full, else it would not have been split. */
	if (len != symlink_max || parse_hex4(text + HEAD_LEN + CMEK_SYMLINK_ID_LEN, &e_len))
		return -EBADMSG;
	if (cmek_b64url_decode(text + HEAD_LEN, CMEK_SYMLINK_ID_LEN, id, sizeof id) != (long)sizeof id)
		return -EBADMSG;
	memcpy(head->id, text + HEAD_LEN, CMEK_SYMLINK_ID_LEN);
	head->e_len = e_len;
	head->e = text + SPLIT_LEN;
	head->e_here = len - SPLIT_LEN;
	return e_len > head->e_here ? 0 : -EBADMSG;
}

int cmek_symlink_parse(const char *text, size_t len, uint32_t symlink_max, struct cmek_symlink_head *ret_head)
{
	struct cmek_symlink_head head = { 0 };
	unsigned dek;
	int r;

	if (len < HEAD_LEN || len > symlink_max || text[0] != '1' || parse_hex4(text + 1, &dek))
		return -EBADMSG;
	head.dek = (uint16_t)dek;
	if (text[5] == '-') {
		head.e = text + HEAD_LEN;
		head.e_len = head.e_here = len - HEAD_LEN;
	} else if (text[5] == '+') {
		head.split = true;
		r = parse_split(text, len, symlink_max, &head);
		if (r)
			return r;
	} else {
		return -EBADMSG;
	}
	if (cmek_symlink_plain_len(head.e_len) == 0)
		return -EBADMSG;
	*ret_head = head;
	return 0;
}

unsigned cmek_symlink_n_pieces(const struct cmek_symlink_head *head, uint32_t symlink_max)
{
	return (unsigned)((head->e_len - head->e_here + symlink_max - 1) / symlink_max);
}

void cmek_symlink_piece(const struct cmek_symlink_head *head, uint32_t symlink_max, unsigned k,
			char ret_name[CMEK_SYMLINK_PIECE_NAME], size_t *ret_off, size_t *ret_len)
{
	size_t off = head->e_here + (size_t)(k - 1) * symlink_max;
	size_t left = head->e_len - off;

	snprintf(ret_name, CMEK_SYMLINK_PIECE_NAME, "%s.%u", head->id, k);
	*ret_off = off;
	*ret_len = left < symlink_max ? left : symlink_max;
}
