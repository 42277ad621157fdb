/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A superblock of the journal. The first byte says whether the rest is what is sealed in it, zeros behind, or what the
 * block begins with, over one that is good.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "fs/content/journal_record.h"
#include "tests/fuzz/key.h"

enum { TAG = 40, SEALED = 56, SEALED_BYTES = CMEK_JOURNAL_UNIT - SEALED };

static const uint8_t volume[16] = { 1 };

static struct cmek_keyring *fuzz_ring(void)
{
	static struct cmek_keyring *ring;
	uint8_t wrapped[CMEK_DEK_WRAPPED_LEN];
	struct cmek_secret *kek;

	if (ring != NULL)
		return ring;
	kek = fuzz_key_new(CMEK_KEY_KEK, 32);
	FUZZ_CHECK(cmek_keyring_new(volume, &kek, &ring, NULL) == 0);
	FUZZ_CHECK(cmek_keyring_make_dek(ring, 1, 0, CMEK_DEK_ACTIVE, wrapped, NULL) == 0);
	return ring;
}

static void seal_super(const uint8_t plain[SEALED_BYTES], uint8_t buf[CMEK_JOURNAL_UNIT])
{
	struct iovec aad[2] = { { buf, TAG }, { (void *)(uintptr_t)volume, sizeof(volume) } };
	uint8_t nonce[CMEK_NONCE_LEN];
	struct cmek_secret *key = NULL;
	struct cmek_seal_right right;

	FUZZ_CHECK(cmek_keyring_seal_right(fuzz_ring(), 1, &right) == 0);
	FUZZ_CHECK(cmek_keyring_journal_key(fuzz_ring(), right.dek, right.salt, &key) == 0);
	memset(buf, 0, SEALED);
	memcpy(buf, "CMEKJNL\n", 8);
	cmek_store32(buf + 8, 1);
	cmek_store32(buf + 12, right.dek);
	memcpy(buf + 16, right.salt, CMEK_SALT_LEN);
	cmek_store64(buf + 32, right.first);
	cmek_keyring_nonce(CMEK_DOMAIN_JOURNAL, right.first, nonce);
	FUZZ_CHECK(cmek_gcm_seal(key, CMEK_KEY_JOURNAL, nonce, aad, 2, plain, SEALED_BYTES, buf + SEALED, buf + TAG) == 0);
	cmek_secret_free(key);
}

static void fuzz_sealed(const uint8_t *data, size_t size)
{
	uint8_t plain[SEALED_BYTES] = { 0 }, buf[CMEK_JOURNAL_UNIT];
	struct cmek_journal_super super, again;
	int r;

	if (size > sizeof(plain))
		return;
	memcpy(plain, data, size);
	seal_super(plain, buf);
	r = cmek_journal_super_decode(fuzz_ring(), volume, buf, &super);
	FUZZ_CHECK(r == 0 || r == -EBADMSG);
	if (r < 0)
		return;
	FUZZ_CHECK(super.handle.len <= CMEK_HANDLE_MAX && super.tail_off >= CMEK_JOURNAL_RECORDS_AT &&
		   super.tail_off <= super.length_bytes && super.tail_off % CMEK_JOURNAL_UNIT == 0);
	FUZZ_CHECK(cmek_journal_super_encode(fuzz_ring(), volume, &super, buf) == 0);
	FUZZ_CHECK(cmek_journal_super_decode(fuzz_ring(), volume, buf, &again) == 0);
	FUZZ_CHECK(again.sequence == super.sequence && again.length_bytes == super.length_bytes &&
		   again.tail_off == super.tail_off && again.tail_seq == super.tail_seq &&
		   again.dek_next == super.dek_next && again.empty == super.empty &&
		   again.handle.type == super.handle.type && again.handle.len == super.handle.len &&
		   memcmp(again.handle.bytes, super.handle.bytes, super.handle.len) == 0 &&
		   memcmp(again.mount_id, super.mount_id, sizeof(super.mount_id)) == 0);
}

/* No byte of a good one can be another. */
static void fuzz_begin(const uint8_t *data, size_t size)
{
	static const struct cmek_journal_super good = { .sequence = 1, .length_bytes = UINT64_C(8) << 20,
							.tail_off = CMEK_JOURNAL_RECORDS_AT, .tail_seq = 1 };
	uint8_t buf[CMEK_JOURNAL_UNIT], changed[CMEK_JOURNAL_UNIT];
	struct cmek_journal_super super;
	int r;

	if (size > sizeof(buf))
		return;
	FUZZ_CHECK(cmek_journal_super_encode(fuzz_ring(), volume, &good, buf) == 0);
	memcpy(changed, buf, sizeof(buf));
	memcpy(changed, data, size);
	r = cmek_journal_super_decode(fuzz_ring(), volume, changed, &super);
	FUZZ_CHECK(memcmp(buf, changed, sizeof(buf)) == 0 ? r == 0 : r == -EBADMSG || r == -ENOKEY);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	if (data[0] == 's')
		fuzz_sealed(data + 1, size - 1);
	else
		fuzz_begin(data + 1, size - 1);
	return 0;
}
