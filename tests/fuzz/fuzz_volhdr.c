/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A copy of the volume's header, in the store or in a backup file. The first byte says what the rest is: the bytes as they
 * are; what a good one begins with, digests made anew; the text of the area; what a tombstone begins with; a slot's text.
 */
#include "config.h"

#include <string.h>

#include "base/crypto.h"
#include "base/bytes.h"
#include "fs/volume/volhdr.h"
#include "tests/fuzz/key.h"

/* Offsets in the head (doc/format.md section 2). */
enum { AT_TEXT_LEN = 48, AT_SHA256 = 56, AT_RESERVED = 120 };
enum { AREA_BYTES = 4 * CMEK_VOLHDR_AREA_MIN, COPY_BYTES = CMEK_VOLHDR_HEAD_LEN + AREA_BYTES };

static struct cmek_secret *mac_key;

/* The SHA-256 that the decoder wants, so that it goes on. */
static void digest(uint8_t *bytes, size_t len)
{
	static const uint8_t zero[AT_RESERVED - AT_SHA256];
	struct iovec iov[3] = { { bytes, AT_SHA256 }, { (void *)(uintptr_t)zero, sizeof(zero) },
				{ bytes + AT_RESERVED, len - AT_RESERVED } };

	FUZZ_CHECK(cmek_sha256(iov, 3, bytes + AT_SHA256) == 0);
}

static void add_slot(struct cmek_volhdr *hdr)
{
	struct cmek_slot *slot = cmek_volhdr_grow_slots(hdr);

	FUZZ_CHECK(slot != NULL);
	slot->purpose = strdup("data");
	slot->provider = strdup("local");
	slot->key = strdup("local:test");
	slot->resolved = strdup("local:test");
	slot->version = strdup("1");
	slot->region = strdup("");
	slot->wrapped = (uint8_t *)strdup("blob");
	slot->wrapped_len = 4;
	slot->created = slot->rewrapped = 1700000000;
}

/* A copy as the program writes it. */
static void good_copy(uint8_t copy[COPY_BYTES])
{
	struct cmek_volhdr *hdr = NULL;
	struct cmek_dek_entry *dek;
	uint8_t *bytes = NULL;
	size_t len = 0;

	FUZZ_CHECK(cmek_volhdr_new(&hdr, NULL) == 0);
	hdr->sequence = 7;
	memset(hdr->uuid, 0x11, sizeof(hdr->uuid));
	hdr->area_len = AREA_BYTES;
	hdr->block_size = 4096;
	hdr->symlink_max = 4095;
	hdr->created = 1700000000;
	add_slot(hdr);
	dek = cmek_volhdr_grow_deks(hdr);
	FUZZ_CHECK(dek != NULL);
	dek->id = 1;
	dek->state = CMEK_DEK_ACTIVE;
	hdr->dek_active = 1;
	hdr->dek_next = 2;
	FUZZ_CHECK(cmek_volhdr_encode(hdr, mac_key, &bytes, &len, NULL) == 0 && len == COPY_BYTES);
	memcpy(copy, bytes, len);
	free(bytes);
	cmek_volhdr_free(hdr);
}

/* What is taken can be written, and is the same when it is read again. */
static void check_header(const struct cmek_volhdr *hdr)
{
	struct cmek_volhdr *again = NULL;
	struct cmek_error err = CMEK_ERROR_INIT;
	uint8_t *bytes = NULL, *bytes_again = NULL;
	size_t len = 0, len_again = 0;
	int r;

	FUZZ_CHECK(hdr->n_slots >= 1 && hdr->n_slots <= CMEK_SLOTS_MAX && strlen(hdr->label) <= CMEK_LABEL_MAX);
	FUZZ_CHECK(hdr->dek_active != 0 && hdr->dek_active < hdr->dek_next);
	r = cmek_volhdr_encode(hdr, mac_key, &bytes, &len, &err);
	FUZZ_CHECK(r == 0 || err.kind == CMEK_E_LIMIT);
	if (r < 0)
		return;
	FUZZ_CHECK(cmek_volhdr_verify(bytes, len, mac_key, NULL) == 0);
	FUZZ_CHECK(cmek_volhdr_decode(bytes, len, &again, NULL) == 0);
	FUZZ_CHECK(cmek_volhdr_encode(again, mac_key, &bytes_again, &len_again, NULL) == 0);
	FUZZ_CHECK(len == len_again && memcmp(bytes, bytes_again, len) == 0);
	cmek_volhdr_free(again);
	free(bytes_again);
	free(bytes);
}

static void fuzz_copy(const uint8_t *bytes, size_t len)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_volhdr *hdr = NULL;
	uint64_t sequence = 0;
	int r = cmek_volhdr_decode(bytes, len, &hdr, &err);

	FUZZ_CHECK((r == 0) == (hdr != NULL) && (r == 0) == !cmek_error_is_set(&err));
	FUZZ_CHECK(r < 0 || (cmek_volhdr_intact(bytes, len, &sequence) && sequence == hdr->sequence));
	if (r == 0)
		check_header(hdr);
	cmek_volhdr_free(hdr);
}

static void fuzz_area(const uint8_t *text, size_t len)
{
	uint8_t copy[COPY_BYTES];

	if (len > AREA_BYTES)
		return;
	good_copy(copy);
	memset(copy + CMEK_VOLHDR_HEAD_LEN, 0, AREA_BYTES);
	memcpy(copy + CMEK_VOLHDR_HEAD_LEN, text, len);
	cmek_store64(copy + AT_TEXT_LEN, len);
	digest(copy, sizeof(copy));
	fuzz_copy(copy, sizeof(copy));
}

static void fuzz_head(const uint8_t *data, size_t len)
{
	uint8_t copy[COPY_BYTES];

	if (len > sizeof(copy))
		return;
	good_copy(copy);
	memcpy(copy, data, len);
	digest(copy, sizeof(copy));
	fuzz_copy(copy, sizeof(copy));
}

static void fuzz_tombstone(const uint8_t *data, size_t len)
{
	const struct cmek_tombstone good = { .sequence = 8, .uuid = { 0x11 }, .when = 1700000000 };
	uint8_t bytes[CMEK_TOMBSTONE_LEN], again[CMEK_TOMBSTONE_LEN];
	struct cmek_tombstone tombstone;

	if (len > sizeof(bytes))
		return;
	FUZZ_CHECK(cmek_tombstone_encode(&good, bytes) == 0);
	memcpy(bytes, data, len);
	digest(bytes, sizeof(bytes));
	if (cmek_tombstone_decode(bytes, sizeof(bytes), &tombstone)) {
		FUZZ_CHECK(cmek_tombstone_encode(&tombstone, again) == 0);
		FUZZ_CHECK(memcmp(bytes + 16, again + 16, AT_TEXT_LEN - 16) == 0);
	}
	fuzz_copy(bytes, sizeof(bytes));
}

static void fuzz_slot(const uint8_t *text, size_t len)
{
	struct cmek_slot slot = { .id = 0 }, again = { .id = 0 };
	size_t encoded_len = 0;
	char *encoded = NULL;

	if (cmek_slot_decode(text, len, &slot, NULL) != 0)
		return;
	FUZZ_CHECK(slot.id < CMEK_SLOTS_MAX && cmek_slot_purpose_ok(slot.purpose) && slot.wrapped_len <= CMEK_SLOT_BLOB_MAX);
	FUZZ_CHECK(cmek_slot_encode(&slot, &encoded, &encoded_len, NULL) == 0 && encoded_len <= CMEK_SLOT_ENCODED_MAX);
	FUZZ_CHECK(cmek_slot_decode(encoded, encoded_len, &again, NULL) == 0);
	FUZZ_CHECK(again.id == slot.id && !strcmp(again.resolved, slot.resolved) && again.wrapped_len == slot.wrapped_len);
	cmek_slot_done(&again);
	cmek_slot_done(&slot);
	free(encoded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	if (mac_key == NULL)
		mac_key = fuzz_key_new(CMEK_KEY_HEADER_MAC, 32);
	switch (data[0]) {
	case 'c':
		fuzz_copy(data + 1, size - 1);
		break;
	case 'h':
		fuzz_head(data + 1, size - 1);
		break;
	case 'a':
		fuzz_area(data + 1, size - 1);
		break;
	case 't':
		fuzz_tombstone(data + 1, size - 1);
		break;
	case 's':
		fuzz_slot(data + 1, size - 1);
		break;
	default:
		break;
	}
	return 0;
}
