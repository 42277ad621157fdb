/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A map page behind its seal: the first byte says which group it is to be and the block size, the rest is the end of the
 * page (that is where the trailer is), zeros before it. What the parser takes comes out again when it is sealed anew.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "fs/content/map_page.h"
#include "tests/fuzz/fuzz.h"

enum { SEALED = 64, SEALED_BYTES = CMEK_MAP_BYTES - SEALED };

static struct cmek_secret *fuzz_key(void)
{
	static struct cmek_secret *key;

	cmek_secret_allow_unlocked();
	if (key == NULL)
		FUZZ_CHECK(cmek_secret_new_random(CMEK_KEY_CONTENT, 32, &key, NULL) == 0);
	return key;
}

/* Counters are used once, as everywhere. */
static struct cmek_seal_right next_right(void)
{
	static uint64_t counter;
	struct cmek_seal_right right = { .dek = 1, .salt = { 1 }, .first = counter++, .epoch = 1 };

	return right;
}

/* Seals the plain bytes of a page under the key, as cmek_map_seal() would if they said something sensible. */
static void seal_page(const uint8_t plain[SEALED_BYTES], uint64_t group, uint8_t page[CMEK_MAP_BYTES])
{
	struct cmek_seal_right right = next_right();
	uint8_t nonce[CMEK_NONCE_LEN], group_bytes[8];
	struct iovec aad[2] = { { page, 48 }, { group_bytes, 8 } };

	memset(page, 0, SEALED);
	memcpy(page, "CMK\1", 4);
	cmek_store32(page + 4, right.dek);
	cmek_store64(page + 8, right.first);
	memcpy(page + 16, right.salt, CMEK_SALT_LEN);
	cmek_store64(group_bytes, group);
	cmek_keyring_nonce(CMEK_DOMAIN_MAP, right.first, nonce);
	FUZZ_CHECK(cmek_gcm_seal(fuzz_key(), CMEK_KEY_CONTENT, nonce, aad, 2, plain, SEALED_BYTES, page + SEALED,
				 page + 48) == 0);
}

static void check_trailer(const struct cmek_map_trailer *t, uint32_t block_size, uint64_t group)
{
	uint64_t next = 1;
	uint32_t i;

	FUZZ_CHECK(t->group == group && t->plain_bytes > 0 && t->plain_bytes <= cmek_group_plain_bytes(block_size));
	FUZZ_CHECK(t->n_absent <= CMEK_MAP_RANGES);
	if (group != 0) {
		FUZZ_CHECK(t->n_absent == 0 && t->plain_size == 0 && t->group_count == 0);
		return;
	}
	FUZZ_CHECK(t->plain_size > 0 && t->plain_size <= cmek_plain_size_max(block_size));
	FUZZ_CHECK(t->group_count == cmek_group_count(block_size, t->plain_size));
	for (i = 0; i < t->n_absent; i++) {
		FUZZ_CHECK(t->absent[i].first >= next && t->absent[i].count > 0);
		next = t->absent[i].first + t->absent[i].count;
		FUZZ_CHECK(next <= t->group_count);
		next++;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t block_size = 4096u << (size > 0 ? data[0] / 16 % 5 : 0);
	uint64_t group = size > 0 ? data[0] % 16 : 0;
	uint8_t plain[SEALED_BYTES] = { 0 }, page[CMEK_MAP_BYTES], again[CMEK_MAP_BYTES];
	uint8_t entries[CMEK_MAP_ENTRIES_BYTES], entries_again[CMEK_MAP_ENTRIES_BYTES];
	size_t len = size > 0 ? size - 1 : 0;
	struct cmek_map_trailer trailer, trailer_again;
	struct cmek_seal_right right;
	struct cmek_map_head head;
	int r;

	if (len > sizeof(plain))
		return 0;
	memcpy(plain + sizeof(plain) - len, data + size - len, len);
	seal_page(plain, group, page);
	FUZZ_CHECK(cmek_map_head_decode(page, &head) == 0);
	r = cmek_map_open(fuzz_key(), &head, block_size, group, page, entries, &trailer);
	FUZZ_CHECK(r == 0 || r == -EBADMSG);
	if (r < 0)
		return 0;
	check_trailer(&trailer, block_size, group);
	FUZZ_CHECK(memcmp(entries, plain, sizeof(entries)) == 0);
	right = next_right();
	FUZZ_CHECK(cmek_map_seal(fuzz_key(), &right, head.file_id, entries, &trailer, again) == 0);
	FUZZ_CHECK(cmek_map_head_decode(again, &head) == 0);
	FUZZ_CHECK(cmek_map_open(fuzz_key(), &head, block_size, group, again, entries_again, &trailer_again) == 0);
	FUZZ_CHECK(memcmp(entries, entries_again, sizeof(entries)) == 0);
	FUZZ_CHECK(trailer_again.plain_bytes == trailer.plain_bytes && trailer_again.plain_size == trailer.plain_size &&
		   trailer_again.n_absent == trailer.n_absent && trailer_again.record_seq == trailer.record_seq &&
		   memcmp(trailer_again.absent, trailer.absent, trailer.n_absent * sizeof(trailer.absent[0])) == 0);
	return 0;
}
