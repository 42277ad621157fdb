/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Superblocks and records against the vectors of doc/format.md section 8, and everything they must not get away with. */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/content/block_map.h"
#include "tests/fuzz/seal_meta.h"
#include "tests/unit/journal_fixture.h"
#include "tests/unit/vectors.h"

static struct cmek_keyring *ring; /* of the vectors */
static struct cmek_record_id id;  /* of the vectors' record */

static void setup(void)
{
	uint8_t *uuid = vector_get("uuid", NULL), *kek_bytes = vector_get("kek", NULL);
	uint8_t *wrapped = vector_get("dek_wrapped", NULL), *mount_id = vector_get("mount_id", NULL);
	struct cmek_secret *kek = NULL;

	cmek_secret_allow_unlocked();
	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_KEK, kek_bytes, 32, &kek, NULL), 0);
	ck_assert_int_eq(cmek_keyring_new(uuid, &kek, &ring, NULL), 0);
	ck_assert_int_eq(cmek_keyring_add_dek(ring, 1, 0, CMEK_DEK_ACTIVE, wrapped, NULL), 0);
	memcpy(id.volume, uuid, 16);
	memcpy(id.mount_id, mount_id, 16);
	id.seq = 1;
	free(uuid);
	free(kek_bytes);
	free(wrapped);
	free(mount_id);
}

static void teardown(void)
{
	cmek_keyring_free(ring);
}

/* Opens a copy of the record, so that the bytes can be used again; counts sections, keeps none. */
static int decode(const uint8_t *bytes, size_t len, const struct cmek_record_id *as)
{
	struct cmek_section *sections = NULL;
	const uint8_t *images = NULL;
	uint8_t *copy = malloc(len ? len : 1); /* exactly as long, so that a sanitizer sees a read behind it */
	size_t n = 0, i;
	int r;

	memcpy(copy, bytes, len);
	r = cmek_record_decode(ring, as, copy, len, &sections, &n, &images);
	if (r == 0) {
		for (i = 0; i < n; i++)
			cmek_section_done(sections + i);
		free(sections);
	} else {
		ck_assert_ptr_null(sections);
	}
	free(copy);
	return r;
}

/* ---- superblock ---- */

START_TEST(vector_superblock)
{
	uint8_t *buf = vector_get("journal_superblock", NULL);
	struct cmek_journal_super super;

	ck_assert_int_eq(cmek_journal_super_decode(ring, id.volume, buf, &super), 0);
	vector_check("mount_id", super.mount_id, 16);
	ck_assert_uint_eq(super.sequence, 3);
	ck_assert_uint_eq(super.length_bytes, 64 << 20);
	ck_assert_uint_eq(super.tail_off, 8192);
	ck_assert_uint_eq(super.tail_seq, 1);
	ck_assert_uint_eq(super.dek_next, 2);
	ck_assert(super.empty);
	ck_assert_uint_eq(super.handle.type, 1);
	vector_check("journal_handle", super.handle.bytes, super.handle.len);
	free(buf);
}
END_TEST

static struct cmek_journal_super a_super(void)
{
	struct cmek_journal_super super = { .sequence = UINT64_C(0x123456789abc), .length_bytes = 32 << 20,
					    .tail_off = 12288, .tail_seq = 99, .dek_next = 7,
					    .handle = { .type = 0x81, .len = CMEK_HANDLE_MAX } };

	memset(super.mount_id, 0x5a, sizeof(super.mount_id));
	memset(super.handle.bytes, 0xa5, sizeof(super.handle.bytes));
	return super;
}

START_TEST(super_there_and_back)
{
	struct cmek_journal_super super = a_super(), again;
	uint8_t buf[CMEK_JOURNAL_UNIT], other[16] = { 0 };

	ck_assert_int_eq(cmek_journal_super_encode(ring, id.volume, &super, buf), 0);
	ck_assert_int_eq(cmek_journal_super_decode(ring, id.volume, buf, &again), 0);
	ck_assert_mem_eq(again.mount_id, super.mount_id, 16);
	ck_assert_uint_eq(again.sequence, super.sequence);
	ck_assert_uint_eq(again.length_bytes, super.length_bytes);
	ck_assert_uint_eq(again.tail_off, super.tail_off);
	ck_assert_uint_eq(again.tail_seq, super.tail_seq);
	ck_assert_uint_eq(again.dek_next, super.dek_next);
	ck_assert(!again.empty);
	ck_assert_uint_eq(again.handle.type, super.handle.type);
	ck_assert_uint_eq(again.handle.len, super.handle.len);
	ck_assert_mem_eq(again.handle.bytes, super.handle.bytes, super.handle.len);
	ck_assert_int_eq(cmek_journal_super_decode(ring, other, buf, &again), -EBADMSG);
}
END_TEST

START_TEST(super_flipped)
{
	uint8_t *buf = vector_get("journal_superblock", NULL);
	struct cmek_journal_super super = { .sequence = 42 };
	size_t at;
	int r;

	for (at = 0; at < CMEK_JOURNAL_UNIT; at += at < 512 ? 1 : 7) {
		buf[at] ^= (uint8_t)(1 << at % 8);
		r = cmek_journal_super_decode(ring, id.volume, buf, &super);
		/* a DEK that the header does not have is told apart; one that can't be is damage */
		ck_assert_msg(r == -EBADMSG || (r == -ENOKEY && at >= 12 && at < 14), "byte %zu: %d", at, r);
		ck_assert_uint_eq(super.sequence, 42); /* untouched on failure */
		buf[at] ^= (uint8_t)(1 << at % 8);
	}
	free(buf);
}
END_TEST

/* Sealed as it should be, but of no sense. */
static const struct {
	uint64_t length_bytes, tail_off;
	uint32_t handle_len;
} bad_supers[] = {
	{ 0, 8192, 8 },
	{ 8192, 8192, 8 },                          /* no room for a record */
	{ (64 << 20) + 1, 8192, 8 },
	{ 64 << 20, 0, 8 },
	{ 64 << 20, 4096, 8 },                      /* in a superblock */
	{ 64 << 20, 8193, 8 },
	{ 64 << 20, (64 << 20) + 4096, 8 },         /* behind the end */
	{ UINT64_MAX - 4095, UINT64_MAX - 8191, 129 },
	{ 64 << 20, 8192, 129 },
	{ 64 << 20, 8192, UINT32_MAX },
};

START_TEST(super_senseless)
{
	/* the encoder takes what it is given; the handle's length it copies, so that is set in the sealed bytes */
	struct cmek_journal_super super = a_super(), got;
	uint8_t buf[CMEK_JOURNAL_UNIT], nonce[CMEK_NONCE_LEN];
	struct iovec aad[2] = { { buf, 40 }, { id.volume, 16 } };
	struct cmek_secret *key = NULL;

	super.length_bytes = bad_supers[_i].length_bytes;
	super.tail_off = bad_supers[_i].tail_off;
	super.handle.len = 8;
	ck_assert_int_eq(cmek_journal_super_encode(ring, id.volume, &super, buf), 0);
	ck_assert_int_eq(cmek_keyring_journal_key(ring, 1, buf + 16, &key), 0);
	cmek_keyring_nonce(CMEK_DOMAIN_JOURNAL, cmek_load64(buf + 32), nonce);
	ck_assert_int_eq(cmek_gcm_open(key, CMEK_KEY_JOURNAL, nonce, aad, 2, buf + 56, sizeof(buf) - 56, buf + 56,
				       buf + 40), 0);
	cmek_store32(buf + 56 + 60, bad_supers[_i].handle_len);
	/* the same nonce again: only in a test, whose key protects nothing */
	ck_assert_int_eq(cmek_gcm_seal(key, CMEK_KEY_JOURNAL, nonce, aad, 2, buf + 56, sizeof(buf) - 56, buf + 56,
				       buf + 40), 0);
	ck_assert_int_eq(cmek_journal_super_decode(ring, id.volume, buf, &got), -EBADMSG);
	cmek_secret_free(key);
}
END_TEST

/* ---- record ---- */

START_TEST(vector_record)
{
	size_t len, n = 0;
	uint8_t *buf = vector_get("journal_record", &len), *path;
	struct cmek_section *sections = NULL;
	const uint8_t *images = NULL;
	uint64_t bytes = 0;

	ck_assert_int_eq(cmek_record_peek(buf, &id, &bytes), 0);
	ck_assert_uint_eq(bytes, len);
	ck_assert_int_eq(cmek_record_decode(ring, &id, buf, len, &sections, &n, &images), 0);
	ck_assert_uint_eq(n, 1);
	vector_check("journal_meta", buf + CMEK_RECORD_HEAD_BYTES, 132);
	ck_assert_uint_eq(sections->handle.type, 1);
	vector_check("journal_handle", sections->handle.bytes, sections->handle.len);
	vector_check("file_id", sections->file_id, CMEK_FILE_ID_LEN);
	path = vector_get("journal_meta", NULL); /* its FILE item has the path behind type, length and handle */
	ck_assert_uint_eq(strlen(sections->path), 20);
	ck_assert_mem_eq(sections->path, path + 8 + 8 + 8 + 4, 20);
	free(path);
	ck_assert_uint_eq(sections->flags, 0);
	ck_assert_uint_eq(sections->plain_size, 4196);
	ck_assert_int_eq(sections->mtime.tv_sec, 1700000000);
	ck_assert_int_eq(sections->mtime.tv_nsec, 123456789);
	ck_assert_uint_eq(sections->n_items, 2);
	ck_assert_int_eq(sections->items[0].type, CMEK_ITEM_MAP);
	ck_assert_uint_eq(sections->items[0].first, 0);
	ck_assert_uint_eq(sections->items[0].count, 4096);
	ck_assert_uint_eq(sections->items[0].image, 0);
	ck_assert_int_eq(sections->items[1].type, CMEK_ITEM_BLOCK);
	ck_assert_uint_eq(sections->items[1].first, 1);
	ck_assert_uint_eq(sections->items[1].count, 100);
	ck_assert_uint_eq(sections->items[1].image, 1);
	vector_check("map0_page", images, 4096);
	vector_check("block1_cipher", images + 4096, 100);
	cmek_section_done(sections);
	free(sections);
	free(buf);
}
END_TEST

/* Sections with every kind of item; images of `units` units in all. */
static void make_sections(struct cmek_section *sections, unsigned n, char *path)
{
	unsigned i, k;

	memset(sections, 0, n * sizeof(*sections));
	for (i = 0; i < n; i++) {
		struct cmek_section *s = sections + i;

		s->handle.type = i;
		s->handle.len = i * 37 % (CMEK_HANDLE_MAX + 1);
		memset(s->handle.bytes, (int)i, s->handle.len);
		s->path = i % 3 == 0 ? strdup("") : strdup(path);
		memset(s->file_id, 0xf0 + (int)i, sizeof(s->file_id));
		s->flags = i % 16;
		s->plain_size = UINT64_MAX / (i + 1);
		s->mtime = (struct timespec){ -(time_t)i * 1000000, 999999999 };
		s->image_base = i * 3;
		for (k = 0; k < i * 5; k++) {
			ck_assert_int_eq(cmek_section_add(s, CMEK_ITEM_MAP, k, CMEK_MAP_BYTES, k % 3), 0);
			ck_assert_int_eq(cmek_section_add(s, CMEK_ITEM_BLOCK, k, 1 + k % 8192, 1), 0);
			ck_assert_int_eq(cmek_section_add(s, CMEK_ITEM_INPLACE, k, UINT32_MAX, 0), 0);
			ck_assert_int_eq(cmek_section_add(s, CMEK_ITEM_PUNCH, UINT64_MAX - k, k, 0), 0);
		}
	}
}

enum { SECTIONS = 12 };

START_TEST(record_there_and_back)
{
	struct cmek_section sections[SECTIONS], *got = NULL;
	const struct cmek_section *list[SECTIONS];
	struct iovec pieces[SECTIONS];
	char path[4096];
	uint8_t *buf;
	const uint8_t *images = NULL;
	size_t n = 0, meta, i, k, bytes;

	memset(path, 'p', sizeof(path) - 1);
	path[sizeof(path) - 1] = 0;
	make_sections(sections, SECTIONS, path);
	for (i = 0; i < SECTIONS; i++)
		list[i] = sections + i;
	meta = cmek_record_meta_bytes(list, SECTIONS);
	ck_assert_uint_eq(meta % CMEK_JOURNAL_UNIT, 0);
	bytes = meta + SECTIONS * 3 * CMEK_JOURNAL_UNIT;
	buf = malloc(bytes);
	jf_fill(buf + meta, bytes - meta, 5);
	for (i = 0; i < SECTIONS; i++)
		pieces[i] = (struct iovec){ buf + meta + i * 3 * CMEK_JOURNAL_UNIT, 3 * CMEK_JOURNAL_UNIT };
	id.seq = 77;
	ck_assert_int_eq(cmek_record_encode(ring, &id, list, SECTIONS, pieces, SECTIONS, buf), 0);
	ck_assert_int_eq(cmek_record_decode(ring, &id, buf, bytes, &got, &n, &images), 0);
	ck_assert_uint_eq(n, SECTIONS);
	ck_assert_ptr_eq(images, buf + meta);
	for (i = 0; i < n; i++) {
		ck_assert_uint_eq(got[i].handle.type, sections[i].handle.type);
		ck_assert_uint_eq(got[i].handle.len, sections[i].handle.len);
		ck_assert_mem_eq(got[i].handle.bytes, sections[i].handle.bytes, sections[i].handle.len);
		ck_assert_str_eq(got[i].path, sections[i].path);
		ck_assert_mem_eq(got[i].file_id, sections[i].file_id, CMEK_FILE_ID_LEN);
		ck_assert_uint_eq(got[i].flags, sections[i].flags);
		ck_assert_uint_eq(got[i].plain_size, sections[i].plain_size);
		ck_assert_int_eq(got[i].mtime.tv_sec, sections[i].mtime.tv_sec);
		ck_assert_int_eq(got[i].mtime.tv_nsec, sections[i].mtime.tv_nsec);
		ck_assert_uint_eq(got[i].n_items, sections[i].n_items);
		for (k = 0; k < got[i].n_items; k++) {
			const struct cmek_item *a = got[i].items + k, *b = sections[i].items + k;
			bool has_image = b->type == CMEK_ITEM_MAP || b->type == CMEK_ITEM_BLOCK;

			ck_assert(a->type == b->type && a->first == b->first && a->count == b->count);
			ck_assert_uint_eq(a->image, has_image ? b->image + i * 3 : 0);
		}
		cmek_section_done(sections + i);
		cmek_section_done(got + i);
	}
	free(got);
	free(buf);
}
END_TEST

START_TEST(record_without_images)
{
	struct cmek_section section = { .path = strdup("a/b"), .flags = CMEK_FILE_TOUCH };
	size_t bytes;
	uint8_t *buf = jf_record(ring, &id, &section, NULL, 0, &bytes);

	ck_assert_uint_eq(bytes, CMEK_JOURNAL_UNIT);
	ck_assert_int_eq(decode(buf, bytes, &id), 0);
	cmek_section_done(&section);
	free(buf);
}
END_TEST

START_TEST(record_too_much)
{
	struct cmek_section section = { .path = strdup("") };
	const struct cmek_section *list = &section;
	struct iovec pieces[CMEK_RECORD_PIECES + 1] = { { NULL, 0 } };
	uint8_t *buf = malloc(2 * CMEK_JOURNAL_UNIT);
	size_t i, n = CMEK_RECORD_META_MAX / 24 + 1;

	ck_assert_int_eq(cmek_record_encode(ring, &id, &list, 1, pieces, CMEK_RECORD_PIECES + 1, buf), -E2BIG);
	for (i = 0; i < n; i++)
		ck_assert_int_eq(cmek_section_add(&section, CMEK_ITEM_INPLACE, i, 1, 0), 0);
	ck_assert_int_eq(cmek_record_encode(ring, &id, &list, 1, pieces, 0, buf), -E2BIG);
	cmek_section_done(&section);
	free(buf);
}
END_TEST

/* Every byte of head and meta data, and a spread of those behind: the filling, and the images. */
START_TEST(record_flipped)
{
	size_t len, at, meta_end;
	uint8_t *buf = vector_get("journal_record", &len);
	int r;

	meta_end = CMEK_RECORD_HEAD_BYTES + cmek_load32(buf + 12);
	for (at = 0; at < len; at += at < meta_end ? 1 : 13) {
		buf[at] ^= (uint8_t)(1 << at % 8);
		r = decode(buf, len, &id);
		ck_assert_msg(r == -EBADMSG || (r == -ENOKEY && at >= 8 && at < 10), "byte %zu: %d", at, r);
		buf[at] ^= (uint8_t)(1 << at % 8);
	}
	ck_assert_int_eq(decode(buf, len, &id), 0);
	free(buf);
}
END_TEST

START_TEST(record_of_another)
{
	size_t len;
	uint8_t *buf = vector_get("journal_record", &len);
	struct cmek_record_id other;
	uint64_t bytes = 42;

	other = id;
	other.seq++;
	ck_assert_int_eq(decode(buf, len, &other), -EBADMSG);
	ck_assert_int_eq(cmek_record_peek(buf, &other, &bytes), -EBADMSG);
	other = id;
	other.mount_id[15] ^= 1;
	ck_assert_int_eq(decode(buf, len, &other), -EBADMSG);
	ck_assert_int_eq(cmek_record_peek(buf, &other, &bytes), -EBADMSG);
	ck_assert_uint_eq(bytes, 42);
	other = id;
	other.volume[0] ^= 1; /* not in the clear, but in the tag */
	ck_assert_int_eq(decode(buf, len, &other), -EBADMSG);
	free(buf);
}
END_TEST

/* Shorter than it says, at each odd and even length; and cut as if the length field had been cut, too. */
START_TEST(record_cut)
{
	static const size_t lens[] = { 0, 1, 7, 8, 12, 15, 16, 47, 56, 71, 72, 87, 88, 127, 128, 129, 259, 260, 261,
				       4095, 4096, 4097, 8191, 8192, 8193, 12287 };
	size_t len, i;
	uint8_t *buf = vector_get("journal_record", &len);

	for (i = 0; i < sizeof(lens) / sizeof(lens[0]); i++)
		ck_assert_msg(decode(buf, lens[i], &id) == -EBADMSG, "%zu bytes", lens[i]);
	for (i = CMEK_JOURNAL_UNIT; i < len; i += CMEK_JOURNAL_UNIT) {
		cmek_store64(buf + 48, i);
		ck_assert_int_eq(decode(buf, i, &id), -EBADMSG);
	}
	free(buf);
}
END_TEST

/* Lengths in the clear head that lie; the second is what the record's length then has to be. */
START_TEST(record_lengths_lie)
{
	static const uint64_t lengths[] = { 0, 1, 4095, 4097, 8192, 16384, UINT64_MAX, UINT64_MAX - 4095 };
	static const uint32_t metas[] = { 0, 131, 133, 3968, 3969, 4096, 8192, 12160, 12161, 1 << 24, UINT32_MAX };
	size_t len, i;
	uint8_t *buf = vector_get("journal_record", &len);
	uint64_t bytes;

	for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		cmek_store64(buf + 48, lengths[i]);
		ck_assert_int_eq(decode(buf, len, &id), -EBADMSG);
		if (cmek_record_peek(buf, &id, &bytes) == 0)
			ck_assert(bytes == lengths[i] && bytes % CMEK_JOURNAL_UNIT == 0 && bytes > 0);
	}
	cmek_store64(buf + 48, len);
	for (i = 0; i < sizeof(metas) / sizeof(metas[0]); i++) {
		cmek_store32(buf + 12, metas[i]);
		ck_assert_int_eq(decode(buf, len, &id), -EBADMSG);
	}
	free(buf);
}
END_TEST

/* ---- meta data that is authentic and wrong ---- */

/* Little-endian integers as text for the table. */
#define FILE_OF(handle_len, path_len, flags, nsec) \
	"01000000" handle_len path_len "00000000000000000000000000000000" flags "0000000000000000" \
	"0000000000000000" nsec
#define ZERO4 "00000000"
/* a FILE without handle and path: a body of 52 bytes */
#define FILE_PLAIN "01000000" "34000000" FILE_OF(ZERO4, ZERO4, ZERO4, ZERO4)

static const struct {
	const char *what, *meta;
	unsigned units; /* of images */
	int result;
} metas[] = {
	{ "nothing", "", 0, 0 },
	{ "one file", FILE_PLAIN, 0, 0 },
	{ "two files", FILE_PLAIN FILE_PLAIN, 3, 0 },
	{ "map", FILE_PLAIN "02000000" "0c000000" "0000000000000000" "00000000", 1, 0 },
	{ "block of 1", FILE_PLAIN "03000000" "10000000" "0000000000000000" "01000000" "00000000", 1, 0 },
	{ "in place", FILE_PLAIN "04000000" "10000000" "0000000000000000" "ffffffffffffffff", 0, 0 },
	{ "punch", FILE_PLAIN "05000000" "10000000" "0100000000000000" "0100000000000000", 0, 0 },
	{ "nsec 999999999", "01000000" "34000000" FILE_OF(ZERO4, ZERO4, ZERO4, "ffc99a3b"), 0, 0 },

	{ "nsec 1000000000", "01000000" "34000000" FILE_OF(ZERO4, ZERO4, ZERO4, "00ca9a3b"), 0, -EUCLEAN },
	{ "nsec -1", "01000000" "34000000" FILE_OF(ZERO4, ZERO4, ZERO4, "ffffffff"), 0, -EUCLEAN },
	{ "unknown flag", "01000000" "34000000" FILE_OF(ZERO4, ZERO4, "10000000", ZERO4), 0, -EUCLEAN },
	{ "type 0", FILE_PLAIN "00000000" "00000000", 0, -EUCLEAN },
	{ "type 0 of 16", FILE_PLAIN "00000000" "10000000" "00000000000000000000000000000000", 0, -EUCLEAN },
	{ "type 6", FILE_PLAIN "06000000" "10000000" "00000000000000000000000000000000", 0, -EUCLEAN },
	{ "type 6, empty", FILE_PLAIN "06000000" "00000000", 0, -EUCLEAN },
	{ "type 65535", FILE_PLAIN "ffff0000" "00000000", 0, -EUCLEAN },
	{ "item reserved", FILE_PLAIN "05000100" "10000000" "0100000000000000" "0100000000000000", 0, -EUCLEAN },
	{ "file reserved", "01000100" "34000000" FILE_OF(ZERO4, ZERO4, ZERO4, ZERO4), 0, -EUCLEAN },
	{ "map before a file", "02000000" "0c000000" "0000000000000000" "00000000", 1, -EUCLEAN },
	{ "in place before a file", "04000000" "10000000" "0000000000000000" "0100000000000000" FILE_PLAIN, 1, -EUCLEAN },
	{ "map behind the images", FILE_PLAIN "02000000" "0c000000" "0000000000000000" "01000000", 1, -EUCLEAN },
	{ "map without images", FILE_PLAIN "02000000" "0c000000" "0000000000000000" "00000000", 0, -EUCLEAN },
	{ "map far behind", FILE_PLAIN "02000000" "0c000000" "0000000000000000" "ffffffff", 3, -EUCLEAN },
	{ "block beyond", FILE_PLAIN "03000000" "10000000" "0000000000000000" "01100000" "00000000", 1, -EUCLEAN },
	{ "block of 0", FILE_PLAIN "03000000" "10000000" "0000000000000000" "00000000" "00000000", 1, -EUCLEAN },
	{ "block of 65537", FILE_PLAIN "03000000" "10000000" "0000000000000000" "01000100" "00000000", 20, -EUCLEAN },
	{ "block of 2^32-1", FILE_PLAIN "03000000" "10000000" "0000000000000000" "ffffffff" "00000000", 1, -EUCLEAN },
	{ "map too short", FILE_PLAIN "02000000" "0b000000" "0000000000000000" "000000", 1, -EUCLEAN },
	{ "map too long", FILE_PLAIN "02000000" "0d000000" "0000000000000000" "0000000000", 1, -EUCLEAN },
	{ "in place around", FILE_PLAIN "04000000" "10000000" "0100000000000000" "ffffffffffffffff", 0, -EUCLEAN },
	{ "half an item head", FILE_PLAIN "04000000", 0, -EUCLEAN },
	{ "one byte", "01", 0, -EUCLEAN },
	{ "seven bytes", "01000000340000", 0, -EUCLEAN },
	{ "body missing", "01000000" "34000000", 0, -EUCLEAN },
	{ "body cut", "01000000" "34000000" "00000000", 0, -EUCLEAN },
	{ "length 2^32-1", "01000000" "ffffffff" FILE_OF(ZERO4, ZERO4, ZERO4, ZERO4), 0, -EUCLEAN },
	{ "file too short", "01000000" "33000000" "01000000" "00000000" "00000000" "00000000000000000000000000000000"
			    "00000000" "0000000000000000" "0000000000000000" "000000", 0, -EUCLEAN },
	{ "file too long", "01000000" "35000000" FILE_OF(ZERO4, ZERO4, ZERO4, ZERO4) "00", 0, -EUCLEAN },
	{ "file empty", "01000000" "00000000", 0, -EUCLEAN },
	{ "handle of 129", "01000000" "b5000000" "01000000" "81000000", 0, -EUCLEAN },
	{ "handle of 2^32-1", "01000000" "34000000" FILE_OF("ffffffff", ZERO4, ZERO4, ZERO4), 0, -EUCLEAN },
	{ "handle behind the body", "01000000" "34000000" FILE_OF("80000000", ZERO4, ZERO4, ZERO4), 0, -EUCLEAN },
	{ "path behind the body", "01000000" "34000000" FILE_OF(ZERO4, "01000000", ZERO4, ZERO4), 0, -EUCLEAN },
	{ "path of 2^32-1", "01000000" "34000000" FILE_OF(ZERO4, "ffffffff", ZERO4, ZERO4), 0, -EUCLEAN },
	{ "path", "01000000" "36000000" FILE_OF(ZERO4, "02000000" "6162", ZERO4, ZERO4), 0, 0 },
	{ "path with a NUL", "01000000" "36000000" FILE_OF(ZERO4, "02000000" "6100", ZERO4, ZERO4), 0, -EUCLEAN },
	{ "path that is a NUL", "01000000" "35000000" FILE_OF(ZERO4, "01000000" "00", ZERO4, ZERO4), 0, -EUCLEAN },
	{ "a bad second file", FILE_PLAIN "01000000" "36000000" FILE_OF(ZERO4, "02000000" "6100", ZERO4, ZERO4), 0,
	  -EUCLEAN },
	{ "a bad item after good ones", FILE_PLAIN FILE_PLAIN "05000000" "10000000" "0100000000000000" "0100000000000000"
	  "07000000" "00000000", 0, -EUCLEAN },
};

START_TEST(meta_checked)
{
	uint8_t meta[1024], *buf;
	size_t len = unit_hex(metas[_i].meta, meta, sizeof(meta)), bytes = 0;
	int r;

	buf = seal_any_meta(ring, &id, meta, len, metas[_i].units, &bytes);
	ck_assert_ptr_nonnull(buf);
	r = decode(buf, bytes, &id);
	ck_assert_msg(r == metas[_i].result, "%s: %d", metas[_i].what, r);
	free(buf);
}
END_TEST

/* The vector's meta data cut everywhere, and with every byte changed: an error or something whole, never more. */
START_TEST(meta_mutated)
{
	size_t len, at, bytes = 0;
	uint8_t *meta = vector_get("journal_meta", &len), *buf;
	int r, with;

	for (at = 0; at < len; at++) {
		buf = seal_any_meta(ring, &id, meta, at, 2, &bytes);
		r = decode(buf, bytes, &id);
		/* whole items are fine: nothing, the FILE alone, FILE and MAP */
		ck_assert_msg(r == (at == 0 || at == 88 || at == 108 ? 0 : -EUCLEAN), "cut at %zu: %d", at, r);
		free(buf);
		for (with = 1; with < 256; with = with * 4 + 3) {
			meta[at] ^= (uint8_t)with;
			buf = seal_any_meta(ring, &id, meta, len, 2, &bytes);
			r = decode(buf, bytes, &id);
			ck_assert_msg(r == 0 || r == -EUCLEAN, "byte %zu ^ %d: %d", at, with, r);
			free(buf);
			meta[at] ^= (uint8_t)with;
		}
	}
	free(meta);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("journal_record");
	TCase *tcase = tcase_create("journal_record");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, vector_superblock);
	tcase_add_test(tcase, super_there_and_back);
	tcase_add_test(tcase, super_flipped);
	tcase_add_loop_test(tcase, super_senseless, 0, UNIT_ROWS(bad_supers));
	tcase_add_test(tcase, vector_record);
	tcase_add_test(tcase, record_there_and_back);
	tcase_add_test(tcase, record_without_images);
	tcase_add_test(tcase, record_too_much);
	tcase_add_test(tcase, record_flipped);
	tcase_add_test(tcase, record_of_another);
	tcase_add_test(tcase, record_cut);
	tcase_add_test(tcase, record_lengths_lie);
	tcase_add_loop_test(tcase, meta_checked, 0, UNIT_ROWS(metas));
	tcase_add_test(tcase, meta_mutated);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
