/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Map pages: bytes <-> entries and trailer, sealed. Checks everything a page says before anybody uses it; knows
 * nothing of files, caches or descriptors.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>

#include "base/crypto.h"
#include "fs/content/map_page.h"

enum {
	HEAD_DEK = 4,
	HEAD_COUNTER = 8,
	HEAD_SALT = 16,
	HEAD_FILE_ID = 32,
	HEAD_TAG = 48,
	SEALED = 64, /* from here on encrypted */
	TRAILER = 3904,
	TRAILER_FLAGS = 3912,
	TRAILER_MOUNT_ID = 3916,
	TRAILER_RECORD_SEQ = 3932,
	TRAILER_PLAIN_BYTES = 3940,
	TRAILER_PLAIN_SIZE = 3944,
	TRAILER_GROUP_COUNT = 3952,
	TRAILER_RANGES = 3960,
	TRAILER_RESERVED = 4080,
	RANGE_BYTES = 12
};

static_assert(SEALED + CMEK_MAP_ENTRIES_BYTES == TRAILER, "entries end where the trailer begins");
static_assert(TRAILER_RANGES + CMEK_MAP_RANGES * RANGE_BYTES == TRAILER_RESERVED, "ranges end where they should");

static const uint8_t map_magic[4] = { 'C', 'M', 'K', 1 };

int cmek_map_head_decode(const uint8_t page[CMEK_MAP_BYTES], struct cmek_map_head *ret_head)
{
	uint32_t dek = cmek_load32(page + HEAD_DEK);
	uint64_t counter = cmek_load64(page + HEAD_COUNTER);

	if (memcmp(page, map_magic, sizeof(map_magic)) != 0 || dek == 0 || dek > UINT16_MAX ||
	    counter > CMEK_COUNTER_MAX || cmek_is_zero(page + HEAD_SALT, CMEK_SALT_LEN))
		return -EBADMSG;
	ret_head->dek = (uint16_t)dek;
	ret_head->counter = counter;
	memcpy(ret_head->salt, page + HEAD_SALT, CMEK_SALT_LEN);
	memcpy(ret_head->file_id, page + HEAD_FILE_ID, CMEK_FILE_ID_LEN);
	return 0;
}

/* Associated data of a page: its head up to the tag, and the group it is for. */
static void page_aad(const uint8_t *page, uint64_t group, uint8_t group_bytes[8], struct iovec aad[2])
{
	cmek_store64(group_bytes, group);
	aad[0].iov_base = (void *)(uintptr_t)page; /* only read */
	aad[0].iov_len = HEAD_TAG;
	aad[1].iov_base = group_bytes;
	aad[1].iov_len = 8;
}

/* The fields of group 0 only; plain is the page with its sealed part opened. */
static int decode_file_fields(const uint8_t *plain, uint32_t block_size, struct cmek_map_trailer *t)
{
	uint64_t next_free = 1;
	uint32_t i;

	t->plain_size = cmek_load64(plain + TRAILER_PLAIN_SIZE);
	t->group_count = cmek_load64(plain + TRAILER_GROUP_COUNT);
	if (t->plain_size == 0 || t->plain_size > cmek_plain_size_max(block_size) ||
	    t->group_count != cmek_group_count(block_size, t->plain_size) ||
	    t->plain_bytes != cmek_group_plain_len(block_size, t->plain_size, 0))
		return -EBADMSG;
	for (i = 0; i < CMEK_MAP_RANGES; i++) {
		const uint8_t *p = plain + TRAILER_RANGES + i * RANGE_BYTES;
		struct cmek_map_range range = { cmek_load64(p), cmek_load32(p + 8) };

		if (range.count == 0) {
			if (!cmek_is_zero(p, (CMEK_MAP_RANGES - i) * RANGE_BYTES))
				return -EBADMSG;
			break;
		}
		/* ascending, not touching, never group 0, inside the file */
		if (range.first < next_free || range.first >= t->group_count ||
		    range.count > t->group_count - range.first)
			return -EBADMSG;
		next_free = range.first + range.count + 1;
		t->absent[t->n_absent++] = range;
	}
	return 0;
}

static int decode_trailer(const uint8_t *plain, uint32_t block_size, uint64_t group, struct cmek_map_trailer *t)
{
	memset(t, 0, sizeof(*t));
	t->group = cmek_load64(plain + TRAILER);
	memcpy(t->mount_id, plain + TRAILER_MOUNT_ID, sizeof(t->mount_id));
	t->record_seq = cmek_load64(plain + TRAILER_RECORD_SEQ);
	t->plain_bytes = cmek_load32(plain + TRAILER_PLAIN_BYTES);
	if (t->group != group || cmek_load32(plain + TRAILER_FLAGS) != 0 || t->plain_bytes == 0 ||
	    t->plain_bytes > cmek_group_plain_bytes(block_size) ||
	    !cmek_is_zero(plain + TRAILER_RESERVED, CMEK_MAP_BYTES - TRAILER_RESERVED))
		return -EBADMSG;
	if (group == 0)
		return decode_file_fields(plain, block_size, t);
	return cmek_is_zero(plain + TRAILER_PLAIN_SIZE, TRAILER_RESERVED - TRAILER_PLAIN_SIZE) ? 0 : -EBADMSG;
}

int cmek_map_open(const struct cmek_secret *key, const struct cmek_map_head *head, uint32_t block_size, uint64_t group,
		  const uint8_t page[CMEK_MAP_BYTES], uint8_t entries[CMEK_MAP_ENTRIES_BYTES],
		  struct cmek_map_trailer *ret_trailer)
{
	uint8_t plain[CMEK_MAP_BYTES], nonce[CMEK_NONCE_LEN], group_bytes[8];
	struct cmek_map_trailer trailer;
	struct iovec aad[2];
	int r;

	page_aad(page, group, group_bytes, aad);
	cmek_keyring_nonce(CMEK_DOMAIN_MAP, head->counter, nonce);
	r = cmek_gcm_open(key, CMEK_KEY_CONTENT, nonce, aad, 2, page + SEALED, CMEK_MAP_BYTES - SEALED, plain + SEALED,
			  page + HEAD_TAG);
	if (r == 0)
		r = decode_trailer(plain, block_size, group, &trailer);
	if (r < 0)
		return r;
	memcpy(entries, plain + SEALED, CMEK_MAP_ENTRIES_BYTES);
	*ret_trailer = trailer;
	return 0;
}

static void encode_trailer(const struct cmek_map_trailer *t, uint8_t *plain)
{
	uint32_t i;

	memset(plain + TRAILER, 0, CMEK_MAP_BYTES - TRAILER);
	cmek_store64(plain + TRAILER, t->group);
	memcpy(plain + TRAILER_MOUNT_ID, t->mount_id, sizeof(t->mount_id));
	cmek_store64(plain + TRAILER_RECORD_SEQ, t->record_seq);
	cmek_store32(plain + TRAILER_PLAIN_BYTES, t->plain_bytes);
	if (t->group != 0)
		return;
	assert(t->n_absent <= CMEK_MAP_RANGES);
	cmek_store64(plain + TRAILER_PLAIN_SIZE, t->plain_size);
	cmek_store64(plain + TRAILER_GROUP_COUNT, t->group_count);
	for (i = 0; i < t->n_absent; i++) {
		cmek_store64(plain + TRAILER_RANGES + i * RANGE_BYTES, t->absent[i].first);
		cmek_store32(plain + TRAILER_RANGES + i * RANGE_BYTES + 8, t->absent[i].count);
	}
}

int cmek_map_seal(const struct cmek_secret *key, const struct cmek_seal_right *right,
		  const uint8_t file_id[CMEK_FILE_ID_LEN], const uint8_t entries[CMEK_MAP_ENTRIES_BYTES],
		  const struct cmek_map_trailer *trailer, uint8_t page[CMEK_MAP_BYTES])
{
	uint8_t nonce[CMEK_NONCE_LEN], group_bytes[8];
	struct iovec aad[2];

	memcpy(page, map_magic, sizeof(map_magic));
	cmek_store32(page + HEAD_DEK, right->dek);
	cmek_store64(page + HEAD_COUNTER, right->first);
	memcpy(page + HEAD_SALT, right->salt, CMEK_SALT_LEN);
	memcpy(page + HEAD_FILE_ID, file_id, CMEK_FILE_ID_LEN);
	memcpy(page + SEALED, entries, CMEK_MAP_ENTRIES_BYTES);
	encode_trailer(trailer, page);
	page_aad(page, trailer->group, group_bytes, aad);
	cmek_keyring_nonce(CMEK_DOMAIN_MAP, right->first, nonce);
	return cmek_gcm_seal(key, CMEK_KEY_CONTENT, nonce, aad, 2, page + SEALED, CMEK_MAP_BYTES - SEALED,
			     page + SEALED, page + HEAD_TAG);
}
