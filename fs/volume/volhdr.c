/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The volume header's frame: head, digests and area, bytes to struct and back. What stands in the area is read and
 * written by volhdr_json.c. No I/O.
 */
#include "config.h"

#include "fs/volume/volhdr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "base/text.h"
#include "fs/volume/volhdr_json.h"

#define HEADER_VERSION 1

/* Offsets in the head (doc/format.md section 2). */
enum {
	AT_MAGIC = 0,
	AT_VERSION = 8,
	AT_HEAD_LEN = 12,
	AT_SEQUENCE = 16,
	AT_UUID = 24,
	AT_AREA_LEN = 40,
	AT_WHEN = 40, /* of a tombstone */
	AT_TEXT_LEN = 48,
	AT_SHA256 = 56,
	AT_HMAC = 88,
	AT_RESERVED = 120,
};

static const uint8_t magic[8] = { 'C', 'M', 'E', 'K', 'F', 'S', '\r', '\n' };
static const uint8_t tombstone_magic[8] = { 'C', 'M', 'E', 'K', 'G', 'O', 'N', 'E' };

int cmek_volhdr_new(struct cmek_volhdr **ret_hdr, struct cmek_error *err)
{
	struct cmek_volhdr *hdr = calloc(1, sizeof(*hdr));

	if (!hdr)
		return cmek_error_sys(err, ENOMEM, "volume header");
	hdr->area_len = CMEK_VOLHDR_AREA_DEFAULT;
	*ret_hdr = hdr;
	return 0;
}

void cmek_volhdr_free(struct cmek_volhdr *hdr)
{
	size_t i;

	if (!hdr)
		return;
	for (i = 0; i < hdr->n_slots; i++)
		cmek_slot_done(&hdr->slots[i]);
	for (i = 0; i < hdr->n_deks; i++)
		json_decref(hdr->deks[i].read);
	free(hdr->slots);
	free(hdr->deks);
	free(hdr->read_only_for);
	json_decref(hdr->read);
	free(hdr);
}

struct cmek_slot *cmek_volhdr_grow_slots(struct cmek_volhdr *hdr)
{
	struct cmek_slot *grown = reallocarray(hdr->slots, hdr->n_slots + 1, sizeof(*grown));

	if (!grown)
		return NULL;
	hdr->slots = grown;
	grown += hdr->n_slots++;
	memset(grown, 0, sizeof(*grown));
	return grown;
}

struct cmek_slot *cmek_volhdr_slot(const struct cmek_volhdr *hdr, unsigned id)
{
	size_t i;

	for (i = 0; i < hdr->n_slots; i++)
		if (hdr->slots[i].id == id)
			return &hdr->slots[i];
	return NULL;
}

void cmek_volhdr_drop_slot(struct cmek_volhdr *hdr, struct cmek_slot *slot)
{
	size_t i = (size_t)(slot - hdr->slots);

	cmek_slot_done(slot);
	memmove(slot, slot + 1, (hdr->n_slots - i - 1) * sizeof(*slot));
	hdr->n_slots--;
}

struct cmek_dek_entry *cmek_volhdr_grow_deks(struct cmek_volhdr *hdr)
{
	struct cmek_dek_entry *grown = reallocarray(hdr->deks, hdr->n_deks + 1, sizeof(*grown));

	if (!grown)
		return NULL;
	hdr->deks = grown;
	grown += hdr->n_deks++;
	memset(grown, 0, sizeof(*grown));
	return grown;
}

struct cmek_dek_entry *cmek_volhdr_dek(const struct cmek_volhdr *hdr, uint16_t id)
{
	size_t i;

	for (i = 0; i < hdr->n_deks; i++)
		if (hdr->deks[i].id == id)
			return &hdr->deks[i];
	return NULL;
}

bool cmek_volhdr_retire_dek(struct cmek_dek_entry *dek, int64_t now, int64_t destroy_after)
{
	if (dek->state != CMEK_DEK_DECRYPT_ONLY)
		return false;
	dek->state = CMEK_DEK_RETIRED;
	dek->retired = now;
	dek->destroy_after = destroy_after;
	return true;
}

bool cmek_volhdr_destroy_dek(struct cmek_dek_entry *dek, int64_t now)
{
	if (dek->state != CMEK_DEK_RETIRED)
		return false;
	dek->state = CMEK_DEK_DESTROYED;
	dek->destroyed = now;
	dek->destroy_after = 0;
	memset(dek->wrapped, 0, sizeof(dek->wrapped));
	return true;
}

int64_t cmek_volhdr_destroy_after(const struct cmek_volhdr *hdr)
{
	int64_t first = 0;
	size_t i;

	for (i = 0; i < hdr->n_deks; i++)
		if (hdr->deks[i].state == CMEK_DEK_RETIRED && hdr->deks[i].destroy_after > 0 &&
		    (first == 0 || hdr->deks[i].destroy_after < first))
			first = hdr->deks[i].destroy_after;
	return first;
}

/* Length, magic, version and bounds, in this order. *ret_later: the version is a later one, all else is fine. */
static int check_frame(const uint8_t *bytes, size_t len, bool *ret_later, struct cmek_error *err)
{
	uint64_t area_len, text_len;

	if (len < CMEK_VOLHDR_HEAD_LEN)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "cut off: %zu bytes, the head alone has %d", len,
				      CMEK_VOLHDR_HEAD_LEN);
	if (memcmp(bytes + AT_MAGIC, magic, sizeof(magic)))
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "not a volume header: wrong magic number");
	*ret_later = cmek_load32(bytes + AT_VERSION) != HEADER_VERSION;
	if (cmek_load32(bytes + AT_HEAD_LEN) != CMEK_VOLHDR_HEAD_LEN)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the head length is %u, not %d",
				      cmek_load32(bytes + AT_HEAD_LEN), CMEK_VOLHDR_HEAD_LEN);
	area_len = cmek_load64(bytes + AT_AREA_LEN);
	if (area_len < CMEK_VOLHDR_AREA_MIN || area_len > CMEK_VOLHDR_AREA_MAX || area_len % CMEK_VOLHDR_AREA_MIN)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the area length %llu is out of range",
				      (unsigned long long)area_len);
	if (len != CMEK_VOLHDR_HEAD_LEN + area_len)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "%zu bytes, the head says %llu", len,
				      (unsigned long long)(CMEK_VOLHDR_HEAD_LEN + area_len));
	text_len = cmek_load64(bytes + AT_TEXT_LEN);
	if (text_len > area_len)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the text length %llu is larger than the area",
				      (unsigned long long)text_len);
	return 0;
}

/* Both digests are over the same bytes: all of them, those of the digests taken as zero. */
static void digested(const uint8_t *bytes, size_t len, struct iovec iov[3])
{
	static const uint8_t zero[AT_RESERVED - AT_SHA256];

	iov[0] = (struct iovec){ (void *)bytes, AT_SHA256 };
	iov[1] = (struct iovec){ (void *)zero, sizeof(zero) };
	iov[2] = (struct iovec){ (void *)(bytes + AT_RESERVED), len - AT_RESERVED };
}

static bool sha256_fits(const uint8_t *bytes, size_t len)
{
	uint8_t digest[CMEK_SHA256_LEN];
	struct iovec iov[3];

	digested(bytes, len, iov);
	return !cmek_sha256(iov, 3, digest) && !memcmp(digest, bytes + AT_SHA256, sizeof(digest));
}

int cmek_tombstone_encode(const struct cmek_tombstone *tombstone, uint8_t bytes[CMEK_TOMBSTONE_LEN])
{
	struct iovec iov[3];

	memset(bytes, 0, CMEK_TOMBSTONE_LEN);
	memcpy(bytes + AT_MAGIC, tombstone_magic, sizeof(tombstone_magic));
	cmek_store32(bytes + AT_VERSION, HEADER_VERSION);
	cmek_store32(bytes + AT_HEAD_LEN, CMEK_TOMBSTONE_LEN);
	cmek_store64(bytes + AT_SEQUENCE, tombstone->sequence);
	memcpy(bytes + AT_UUID, tombstone->uuid, 16);
	cmek_store64(bytes + AT_WHEN, (uint64_t)tombstone->when);
	digested(bytes, CMEK_TOMBSTONE_LEN, iov);
	return cmek_sha256(iov, 3, bytes + AT_SHA256);
}

bool cmek_tombstone_decode(const uint8_t *bytes, size_t len, struct cmek_tombstone *ret_tombstone)
{
	if (len != CMEK_TOMBSTONE_LEN || memcmp(bytes + AT_MAGIC, tombstone_magic, sizeof(tombstone_magic)) ||
	    cmek_load32(bytes + AT_VERSION) != HEADER_VERSION || !sha256_fits(bytes, len))
		return false;
	ret_tombstone->sequence = cmek_load64(bytes + AT_SEQUENCE);
	memcpy(ret_tombstone->uuid, bytes + AT_UUID, 16);
	ret_tombstone->when = (int64_t)cmek_load64(bytes + AT_WHEN);
	return true;
}

bool cmek_volhdr_intact(const uint8_t *bytes, size_t len, uint64_t *ret_sequence)
{
	bool later;

	if (check_frame(bytes, len, &later, NULL) || !sha256_fits(bytes, len))
		return false;
	*ret_sequence = cmek_load64(bytes + AT_SEQUENCE);
	return true;
}

int cmek_volhdr_decode(const uint8_t *bytes, size_t len, struct cmek_volhdr **ret_hdr, struct cmek_error *err)
{
	char when[CMEK_TIME_TEXT];
	struct cmek_tombstone tombstone;
	struct cmek_volhdr *hdr = NULL;
	size_t text_len;
	bool later;
	int ret;

	if (cmek_tombstone_decode(bytes, len, &tombstone)) {
		cmek_time_encode(tombstone.when, when);
		return cmek_error_set(err, CMEK_E_KEY_DESTROYED, EIDRM, "the volume was shredded on %s", when);
	}
	ret = check_frame(bytes, len, &later, err);
	if (ret)
		return ret;
	if (later)
		return cmek_error_set(err, CMEK_E_UNSUPPORTED, ENOTSUP,
				      "header version %u, this program knows version %d",
				      cmek_load32(bytes + AT_VERSION), HEADER_VERSION);
	if (!sha256_fits(bytes, len))
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "damaged: the checksum does not fit");
	text_len = (size_t)cmek_load64(bytes + AT_TEXT_LEN);
	if (!cmek_is_zero(bytes + AT_RESERVED, CMEK_VOLHDR_HEAD_LEN - AT_RESERVED))
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "reserved bytes of the head are not zero");
	if (!cmek_is_zero(bytes + CMEK_VOLHDR_HEAD_LEN + text_len, len - CMEK_VOLHDR_HEAD_LEN - text_len))
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the bytes behind the text are not zero");
	ret = cmek_volhdr_new(&hdr, err);
	if (ret)
		return ret;
	hdr->sequence = cmek_load64(bytes + AT_SEQUENCE);
	memcpy(hdr->uuid, bytes + AT_UUID, 16);
	hdr->area_len = (uint32_t)cmek_load64(bytes + AT_AREA_LEN);
	if (hdr->sequence == 0 || hdr->sequence == UINT64_MAX)
		ret = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the sequence number is out of range");
	else
		ret = cmek_volhdr_area_decode(bytes + CMEK_VOLHDR_HEAD_LEN, text_len, hdr, err);
	if (ret) {
		cmek_volhdr_free(hdr);
		return ret;
	}
	*ret_hdr = hdr;
	return 0;
}

int cmek_volhdr_verify(const uint8_t *bytes, size_t len, const struct cmek_secret *mac_key, struct cmek_error *err)
{
	uint8_t mac[CMEK_SHA256_LEN];
	struct iovec iov[3];
	int ret;

	digested(bytes, len, iov);
	ret = cmek_hmac(mac_key, CMEK_KEY_HEADER_MAC, iov, 3, mac);
	if (ret)
		return cmek_error_set(err, CMEK_E_SYSTEM, -ret, "the header's HMAC can't be computed");
	if (!cmek_equal(mac, bytes + AT_HMAC, sizeof(mac)))
		return cmek_error_set(
			err, CMEK_E_TAMPERED, EBADMSG,
			"the header was not written by a holder of this volume's key: the HMAC does not fit");
	return 0;
}

int cmek_volhdr_encode(const struct cmek_volhdr *hdr, const struct cmek_secret *mac_key, uint8_t **ret_bytes,
		       size_t *ret_len, struct cmek_error *err)
{
	size_t text_len, len = CMEK_VOLHDR_HEAD_LEN + (size_t)hdr->area_len;
	struct iovec iov[3];
	uint8_t *bytes = NULL;
	char *text = NULL;
	int ret;

	ret = cmek_volhdr_area_encode(hdr, &text, err);
	if (ret)
		goto out;
	text_len = strlen(text);
	if (text_len > hdr->area_len) {
		ret = cmek_error_set(err, CMEK_E_LIMIT, ENOSPC, "the header's text has %zu bytes, its area only %u",
				     text_len, hdr->area_len);
		goto out;
	}
	bytes = calloc(1, len);
	if (!bytes) {
		ret = cmek_error_sys(err, ENOMEM, "volume header");
		goto out;
	}
	memcpy(bytes + AT_MAGIC, magic, sizeof(magic));
	cmek_store32(bytes + AT_VERSION, HEADER_VERSION);
	cmek_store32(bytes + AT_HEAD_LEN, CMEK_VOLHDR_HEAD_LEN);
	cmek_store64(bytes + AT_SEQUENCE, hdr->sequence);
	memcpy(bytes + AT_UUID, hdr->uuid, 16);
	cmek_store64(bytes + AT_AREA_LEN, hdr->area_len);
	cmek_store64(bytes + AT_TEXT_LEN, text_len);
	memcpy(bytes + CMEK_VOLHDR_HEAD_LEN, text, text_len);
	digested(bytes, len, iov);
	ret = cmek_sha256(iov, 3, bytes + AT_SHA256);
	if (!ret)
		ret = cmek_hmac(mac_key, CMEK_KEY_HEADER_MAC, iov, 3, bytes + AT_HMAC);
	if (ret) {
		ret = cmek_error_set(err, CMEK_E_SYSTEM, -ret, "the header's digests can't be computed");
		goto out;
	}
	*ret_bytes = bytes;
	*ret_len = len;
	bytes = NULL;
out:
	free(bytes);
	free(text);
	return ret;
}
