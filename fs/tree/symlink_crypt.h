/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TREE_SYMLINK_CRYPT_H
#define CMEK_TREE_SYMLINK_CRYPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/secret.h"

/*
 * Targets of symbolic links <-> the texts of symlinks in the store (doc/format.md section 4.3). Pure: no I/O.
 * Thread-safe.
 */
#define CMEK_SYMLINK_TARGET_MAX 4095
#define CMEK_SYMLINK_E_MAX 5503    /* E of the longest target */
#define CMEK_SYMLINK_TEXT_MAX 4095 /* the largest symlink_max */
#define CMEK_SYMLINK_TEXT_MIN 1023 /* the smallest */
#define CMEK_SYMLINK_ID_LEN 22
#define CMEK_SYMLINK_SEGMENTS_MAX 6
#define CMEK_SYMLINK_PIECE_NAME 40 /* "<link id>.<k>" */

/* E = b64url(nonce | SIV). len: 1..4095 bytes of target. e gets a NUL. */
int cmek_symlink_encrypt(const struct cmek_secret *key, const void *target, size_t len,
			 char ret_e[CMEK_SYMLINK_E_MAX + 1], size_t *ret_e_len);
/* The same with a nonce of the caller's choice: for test vectors only. */
int cmek_symlink_encrypt_with(const struct cmek_secret *key, const uint8_t nonce[16], const void *target, size_t len,
			      char ret_e[CMEK_SYMLINK_E_MAX + 1], size_t *ret_e_len);
/* -EBADMSG when E does not authenticate, or what it holds is no target. No NUL is added. */
int cmek_symlink_decrypt(const struct cmek_secret *key, const char *e, size_t e_len,
			 char ret_target[CMEK_SYMLINK_TARGET_MAX], size_t *ret_len);
/* Bytes of the target of an E of this length; 0 when there is no such E. */
size_t cmek_symlink_plain_len(size_t e_len);

/* The text of the link itself, taken apart. */
struct cmek_symlink_head {
	uint16_t dek;
	bool split;                     /* the rest of E is in pieces */
	char id[CMEK_SYMLINK_ID_LEN + 1]; /* link id, empty unless split */
	size_t e_len;                   /* of the whole E */
	const char *e;                  /* its beginning, inside the text that was parsed */
	size_t e_here;                  /* how much of it is here */
};
/* text has symlink_max + 1 bytes and gets a NUL. id: the link id to use if E does not fit, NULL: a random one. */
void cmek_symlink_text(uint16_t dek, const char *e, size_t e_len, uint32_t symlink_max, const uint8_t id[16],
		       char *ret_text);
/* -EBADMSG: not the text of a link of ours. */
int cmek_symlink_parse(const char *text, size_t len, uint32_t symlink_max, struct cmek_symlink_head *ret_head);

/* Pieces that follow the text. */
unsigned cmek_symlink_n_pieces(const struct cmek_symlink_head *head, uint32_t symlink_max);
/* Name of piece k (1...) below .cmekfs/links/, and which bytes of E it has. */
void cmek_symlink_piece(const struct cmek_symlink_head *head, uint32_t symlink_max, unsigned k,
			char ret_name[CMEK_SYMLINK_PIECE_NAME], size_t *ret_off, size_t *ret_len);

#endif
