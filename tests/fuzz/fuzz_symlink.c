/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The texts of symbolic links in the store. The first byte says whether the rest is such a text, in a store with short
 * symlinks or with long ones, or a target in a text that authenticates.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "fs/tree/symlink_crypt.h"
#include "tests/fuzz/key.h"

static struct cmek_secret *key;

/* The pieces follow each other without a gap, to the end. */
static void check_pieces(const struct cmek_symlink_head *head, uint32_t symlink_max)
{
	unsigned n = cmek_symlink_n_pieces(head, symlink_max), k;
	char name[CMEK_SYMLINK_PIECE_NAME];
	size_t at = head->e_here, off, len;

	FUZZ_CHECK(n < CMEK_SYMLINK_SEGMENTS_MAX && head->split == (n > 0));
	for (k = 1; k <= n; k++) {
		cmek_symlink_piece(head, symlink_max, k, name, &off, &len);
		FUZZ_CHECK(off == at && len > 0 && len <= symlink_max);
		FUZZ_CHECK(strspn(name, "-_.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == strlen(name));
		FUZZ_CHECK(name[0] != '.');
		at += len;
	}
	FUZZ_CHECK(at == head->e_len);
}

static void fuzz_text_of_link(const char *text, size_t len, uint32_t symlink_max)
{
	struct cmek_symlink_head head;
	char target[CMEK_SYMLINK_TARGET_MAX];
	size_t target_len = 0;
	int r = cmek_symlink_parse(text, len, symlink_max, &head);

	FUZZ_CHECK(r == 0 || r == -EBADMSG);
	if (r < 0)
		return;
	FUZZ_CHECK(head.e >= text && head.e + head.e_here == text + len && head.e_len >= head.e_here);
	check_pieces(&head, symlink_max);
	if (head.split)
		return;
	r = cmek_symlink_decrypt(key, head.e, head.e_len, target, &target_len);
	FUZZ_CHECK(r == 0 || r == -EBADMSG);
	FUZZ_CHECK(r < 0 || target_len == cmek_symlink_plain_len(head.e_len));
}

static void fuzz_target(const uint8_t *data, size_t size)
{
	static const uint32_t maxima[] = { CMEK_SYMLINK_TEXT_MIN, 2048, CMEK_SYMLINK_TEXT_MAX };
	static const uint8_t nonce[16] = { 1 }, id[16] = { 2 };
	char e[CMEK_SYMLINK_E_MAX + 1], text[CMEK_SYMLINK_TEXT_MAX + 1], target[CMEK_SYMLINK_TARGET_MAX];
	struct cmek_symlink_head head;
	size_t e_len, len = 0, i;
	int r;

	if (size < 1 || size > CMEK_SYMLINK_TARGET_MAX)
		return;
	FUZZ_CHECK(cmek_symlink_encrypt_with(key, nonce, data, size, e, &e_len) == 0);
	FUZZ_CHECK(cmek_symlink_plain_len(e_len) == size);
	r = cmek_symlink_decrypt(key, e, e_len, target, &len);
	FUZZ_CHECK(r == (memchr(data, 0, size) ? -EBADMSG : 0));
	FUZZ_CHECK(r < 0 || (len == size && memcmp(target, data, size) == 0));
	for (i = 0; i < sizeof(maxima) / sizeof(maxima[0]); i++) {
		cmek_symlink_text(0x0102, e, e_len, maxima[i], id, text);
		FUZZ_CHECK(cmek_symlink_parse(text, strlen(text), maxima[i], &head) == 0);
		FUZZ_CHECK(head.dek == 0x0102 && head.e_len == e_len && memcmp(head.e, e, head.e_here) == 0);
		check_pieces(&head, maxima[i]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	if (key == NULL)
		key = fuzz_key_new(CMEK_KEY_SYMLINK, 64);
	switch (data[0]) {
	case 'n': /* narrow */
		fuzz_text_of_link((const char *)data + 1, size - 1, CMEK_SYMLINK_TEXT_MIN);
		break;
	case 'w': /* wide */
		fuzz_text_of_link((const char *)data + 1, size - 1, CMEK_SYMLINK_TEXT_MAX);
		break;
	case 't':
		fuzz_target(data + 1, size - 1);
		break;
	default:
		break;
	}
	return 0;
}
