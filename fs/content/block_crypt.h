/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_CONTENT_BLOCK_CRYPT_H
#define CMEK_CONTENT_BLOCK_CRYPT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "fs/volume/keyring.h"

/*
 * One data block sealed or opened (doc/format.md section 5.3), and the 40-byte map entry that goes with it:
 * session salt 16 | counter 6 | DEK id 2 | tag 16. Nonce and associated data of blocks are defined here only.
 * Thread-safe.
 */
#define CMEK_ENTRY_BYTES 40u

static inline const uint8_t *cmek_entry_salt(const uint8_t *entry)
{
	return entry;
}

static inline uint64_t cmek_entry_counter(const uint8_t *entry)
{
	return cmek_load48(entry + 16);
}

static inline uint16_t cmek_entry_dek(const uint8_t *entry)
{
	return cmek_load16(entry + 22);
}

/* All zero: the block is a hole. */
static inline bool cmek_entry_is_hole(const uint8_t *entry)
{
	return cmek_is_zero(entry, CMEK_ENTRY_BYTES);
}

/* The same salt and DEK, so the same content key. */
static inline bool cmek_entry_same_key(const uint8_t *a, const uint8_t *b)
{
	return memcmp(a, b, 16) == 0 && memcmp(a + 22, b + 22, 2) == 0;
}

/*
 * Seals len plain bytes (1..block size) as block `block` with the counter right->first + nth, under key, which must be
 * the content key of (right->dek, right->salt) and the file. stored gets len bytes, entry the 40 of the map.
 * plain and stored may be the same buffer. 0 or -EIO.
 */
int cmek_block_seal(const struct cmek_secret *key, const struct cmek_seal_right *right, uint32_t nth, uint64_t block,
		    const void *plain, uint32_t len, void *stored, uint8_t entry[CMEK_ENTRY_BYTES]);
/* Opens one; key is that of the entry. -EBADMSG when it does not authenticate (plain is then wiped). */
int cmek_block_open(const struct cmek_secret *key, const uint8_t entry[CMEK_ENTRY_BYTES], uint64_t block,
		    const void *stored, uint32_t len, void *plain);

#endif
