/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Seals and opens single data blocks. Knows keys, counters and the map entry; knows nothing of files or pages.
 */
#include "config.h"

#include "base/crypto.h"
#include "fs/content/block_crypt.h"

int cmek_block_seal(const struct cmek_secret *key, const struct cmek_seal_right *right, uint32_t nth, uint64_t block,
		    const void *plain, uint32_t len, void *stored, uint8_t entry[CMEK_ENTRY_BYTES])
{
	uint8_t nonce[CMEK_NONCE_LEN], aad_bytes[8];
	struct iovec aad = { aad_bytes, sizeof(aad_bytes) };

	cmek_store64(aad_bytes, block);
	cmek_keyring_nonce(CMEK_DOMAIN_BLOCK, right->first + nth, nonce);
	memcpy(entry, right->salt, CMEK_SALT_LEN);
	cmek_store48(entry + 16, right->first + nth);
	cmek_store16(entry + 22, right->dek);
	return cmek_gcm_seal(key, CMEK_KEY_CONTENT, nonce, &aad, 1, plain, len, stored, entry + 24);
}

int cmek_block_open(const struct cmek_secret *key, const uint8_t entry[CMEK_ENTRY_BYTES], uint64_t block,
		    const void *stored, uint32_t len, void *plain)
{
	uint8_t nonce[CMEK_NONCE_LEN], aad_bytes[8];
	struct iovec aad = { aad_bytes, sizeof(aad_bytes) };

	cmek_store64(aad_bytes, block);
	cmek_keyring_nonce(CMEK_DOMAIN_BLOCK, cmek_entry_counter(entry), nonce);
	return cmek_gcm_open(key, CMEK_KEY_CONTENT, nonce, &aad, 1, stored, len, plain, entry + 24);
}
