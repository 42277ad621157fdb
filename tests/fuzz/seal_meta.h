/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TESTS_FUZZ_SEAL_META_H
#define CMEK_TESTS_FUZZ_SEAL_META_H

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "fs/content/journal_record.h"

/*
 * A journal record around any meta data at all, with `units` zeroed images: what a key holder could write, so that
 * tests reach the parser behind the seal. Malloced; NULL when that failed.
 */
static inline uint8_t *seal_any_meta(struct cmek_keyring *ring, const struct cmek_record_id *id, const void *meta,
				     size_t len, size_t units, size_t *ret_bytes)
{
	size_t head = (CMEK_RECORD_HEAD_BYTES + len + CMEK_JOURNAL_UNIT - 1) / CMEK_JOURNAL_UNIT * CMEK_JOURNAL_UNIT;
	size_t bytes = head + units * CMEK_JOURNAL_UNIT;
	uint8_t *buf = calloc(1, bytes), nonce[CMEK_NONCE_LEN];
	struct cmek_secret *key = NULL;
	struct cmek_seal_right right;
	struct iovec aad[3];
	int r;

	if (buf == NULL || cmek_keyring_seal_right(ring, 1, &right) < 0 ||
	    cmek_keyring_journal_key(ring, right.dek, right.salt, &key) < 0) {
		free(buf);
		return NULL;
	}
	memcpy(buf, "CMEKREC\n", 8);
	cmek_store32(buf + 8, right.dek);
	cmek_store32(buf + 12, (uint32_t)len);
	memcpy(buf + 16, right.salt, CMEK_SALT_LEN);
	cmek_store64(buf + 32, right.first);
	cmek_store64(buf + 40, id->seq);
	cmek_store64(buf + 48, bytes);
	memcpy(buf + 56, id->mount_id, 16);
	aad[0] = (struct iovec){ buf, 72 };
	aad[1] = (struct iovec){ (void *)(uintptr_t)id->volume, 16 };
	aad[2] = (struct iovec){ buf + head, bytes - head };
	cmek_keyring_nonce(CMEK_DOMAIN_JOURNAL, right.first, nonce);
	r = cmek_gcm_seal(key, CMEK_KEY_JOURNAL, nonce, aad, 3, meta, len, buf + CMEK_RECORD_HEAD_BYTES, buf + 72);
	cmek_secret_free(key);
	if (r < 0) {
		free(buf);
		return NULL;
	}
	*ret_bytes = bytes;
	return buf;
}

#endif
