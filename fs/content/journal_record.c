/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Superblocks and records of the journal: bytes <-> structs, sealed and opened. What is decoded is authentic, and is
 * checked all the same: a record that a bug wrote must not take replay along. Knows no descriptors.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "fs/content/block_map.h"
#include "fs/content/journal_record.h"

enum {
	SUPER_TAG = 40,
	SUPER_SEALED = 56,
	SUPER_VERSION = 1,
	SUPER_FLAG_EMPTY = 1,
	RECORD_AAD_BYTES = 72, /* the head up to the tag */
	RECORD_TAG = 72,
	RECORD_RESERVED = 88,
	ITEM_HEAD_BYTES = 8,
	ITEM_FILE = 1,
	FILE_FIXED_BYTES = 8 + 4 + 16 + 4 + 8 + 8 + 4, /* a FILE body without handle and path */
	FILE_FLAGS_KNOWN = CMEK_FILE_TOUCH | CMEK_FILE_NEW_ID | CMEK_FILE_MTIME | CMEK_FILE_PART
};

static const uint8_t super_magic[8] = "CMEKJNL\n";
static const uint8_t record_magic[8] = "CMEKREC\n";

void cmek_section_done(struct cmek_section *section)
{
	free(section->path);
	free(section->items);
	memset(section, 0, sizeof(*section));
}

int cmek_section_add(struct cmek_section *section, enum cmek_item_type type, uint64_t first, uint64_t count,
		     uint64_t image)
{
	size_t capacity = section->capacity == 0 ? 8 : section->capacity * 2;
	struct cmek_item *items;

	if (section->n_items == section->capacity) {
		items = reallocarray(section->items, capacity, sizeof(*items));
		if (items == NULL)
			return -ENOMEM;
		section->items = items;
		section->capacity = capacity;
	}
	section->items[section->n_items++] = (struct cmek_item){ type, first, count, image };
	return 0;
}

/* Seals one journal part: common to superblocks and records. */
static int seal(struct cmek_keyring *ring, const struct cmek_seal_right *right, const struct iovec *aad, int n_aad,
		uint8_t *meta, size_t len, uint8_t tag[CMEK_TAG_LEN])
{
	uint8_t nonce[CMEK_NONCE_LEN];
	struct cmek_secret *key = NULL;
	int r = cmek_keyring_journal_key(ring, right->dek, right->salt, &key);

	if (r < 0)
		return r;
	cmek_keyring_nonce(CMEK_DOMAIN_JOURNAL, right->first, nonce);
	r = cmek_gcm_seal(key, CMEK_KEY_JOURNAL, nonce, aad, n_aad, meta, len, meta, tag);
	cmek_secret_free(key);
	if (r == 0)
		cmek_keyring_count_sealed(ring, right->dek, len);
	return r;
}

static int open_sealed(struct cmek_keyring *ring, uint32_t dek, const uint8_t *salt, uint64_t counter,
		       const struct iovec *aad, int n_aad, uint8_t *meta, size_t len, const uint8_t *tag)
{
	uint8_t nonce[CMEK_NONCE_LEN];
	struct cmek_secret *key = NULL;
	int r;

	if (dek == 0 || dek > UINT16_MAX || counter > CMEK_COUNTER_MAX)
		return -EBADMSG;
	r = cmek_keyring_journal_key(ring, (uint16_t)dek, salt, &key);
	if (r < 0)
		return r;
	cmek_keyring_nonce(CMEK_DOMAIN_JOURNAL, counter, nonce);
	r = cmek_gcm_open(key, CMEK_KEY_JOURNAL, nonce, aad, n_aad, meta, len, meta, tag);
	cmek_secret_free(key);
	return r;
}

/* ---- superblock ---- */

int cmek_journal_super_encode(struct cmek_keyring *ring, const uint8_t volume[16],
			      const struct cmek_journal_super *super, uint8_t buf[CMEK_JOURNAL_UNIT])
{
	struct iovec aad[2] = { { buf, SUPER_TAG }, { (void *)(uintptr_t)volume, 16 } };
	struct cmek_seal_right right;
	uint8_t *p = buf + SUPER_SEALED;
	int r = cmek_keyring_seal_right(ring, 1, &right);

	if (r < 0)
		return r;
	memset(buf, 0, CMEK_JOURNAL_UNIT);
	memcpy(buf, super_magic, sizeof(super_magic));
	cmek_store32(buf + 8, SUPER_VERSION);
	cmek_store32(buf + 12, right.dek);
	memcpy(buf + 16, right.salt, CMEK_SALT_LEN);
	cmek_store64(buf + 32, right.first);
	memcpy(p, super->mount_id, 16);
	cmek_store64(p + 16, super->sequence);
	cmek_store64(p + 24, super->length_bytes);
	cmek_store64(p + 32, super->tail_off);
	cmek_store64(p + 40, super->tail_seq);
	cmek_store32(p + 48, super->dek_next);
	cmek_store32(p + 52, super->empty ? SUPER_FLAG_EMPTY : 0);
	cmek_store32(p + 56, super->handle.type);
	cmek_store32(p + 60, super->handle.len);
	memcpy(p + 64, super->handle.bytes, super->handle.len);
	return seal(ring, &right, aad, 2, p, CMEK_JOURNAL_UNIT - SUPER_SEALED, buf + SUPER_TAG);
}

int cmek_journal_super_decode(struct cmek_keyring *ring, const uint8_t volume[16],
			      const uint8_t buf[CMEK_JOURNAL_UNIT], struct cmek_journal_super *ret_super)
{
	struct iovec aad[2] = { { (void *)(uintptr_t)buf, SUPER_TAG }, { (void *)(uintptr_t)volume, 16 } };
	uint8_t plain[CMEK_JOURNAL_UNIT];
	struct cmek_journal_super super = { .sequence = 0 };
	const uint8_t *p = plain + SUPER_SEALED;
	int r;

	if (memcmp(buf, super_magic, sizeof(super_magic)) != 0 || cmek_load32(buf + 8) != SUPER_VERSION)
		return -EBADMSG;
	memcpy(plain, buf, sizeof(plain));
	r = open_sealed(ring, cmek_load32(buf + 12), buf + 16, cmek_load64(buf + 32), aad, 2, plain + SUPER_SEALED,
			sizeof(plain) - SUPER_SEALED, buf + SUPER_TAG);
	if (r < 0)
		return r;
	memcpy(super.mount_id, p, 16);
	super.sequence = cmek_load64(p + 16);
	super.length_bytes = cmek_load64(p + 24);
	super.tail_off = cmek_load64(p + 32);
	super.tail_seq = cmek_load64(p + 40);
	super.dek_next = cmek_load32(p + 48);
	super.empty = cmek_load32(p + 52) & SUPER_FLAG_EMPTY;
	super.handle.type = cmek_load32(p + 56);
	super.handle.len = cmek_load32(p + 60);
	if (super.length_bytes % CMEK_JOURNAL_UNIT != 0 || super.length_bytes <= CMEK_JOURNAL_RECORDS_AT ||
	    super.tail_off % CMEK_JOURNAL_UNIT != 0 || super.tail_off < CMEK_JOURNAL_RECORDS_AT ||
	    super.tail_off > super.length_bytes || super.handle.len > CMEK_HANDLE_MAX)
		return -EBADMSG;
	memcpy(super.handle.bytes, p + 64, super.handle.len);
	*ret_super = super;
	return 0;
}

/* ---- record ---- */

static size_t item_body_bytes(enum cmek_item_type type)
{
	switch (type) {
	case CMEK_ITEM_MAP:
		return 12;
	case CMEK_ITEM_BLOCK:
	case CMEK_ITEM_INPLACE:
	case CMEK_ITEM_PUNCH:
		return 16;
	}
	return 0;
}

size_t cmek_section_bytes(const struct cmek_section *section)
{
	size_t i, bytes = ITEM_HEAD_BYTES + FILE_FIXED_BYTES + section->handle.len + strlen(section->path);

	for (i = 0; i < section->n_items; i++)
		bytes += ITEM_HEAD_BYTES + item_body_bytes(section->items[i].type);
	return bytes;
}

static size_t sections_bytes(const struct cmek_section *const *sections, size_t n)
{
	size_t i, bytes = 0;

	for (i = 0; i < n; i++)
		bytes += cmek_section_bytes(sections[i]);
	return bytes;
}

size_t cmek_record_meta_bytes(const struct cmek_section *const *sections, size_t n)
{
	size_t bytes = CMEK_RECORD_HEAD_BYTES + sections_bytes(sections, n);

	return (bytes + CMEK_JOURNAL_UNIT - 1) / CMEK_JOURNAL_UNIT * CMEK_JOURNAL_UNIT;
}

static uint8_t *put_item_head(uint8_t *p, unsigned type, size_t body_bytes)
{
	cmek_store16(p, (uint16_t)type);
	cmek_store16(p + 2, 0);
	cmek_store32(p + 4, (uint32_t)body_bytes);
	return p + ITEM_HEAD_BYTES;
}

static uint8_t *put_section(const struct cmek_section *s, uint8_t *p)
{
	size_t i, path_len = strlen(s->path);

	p = put_item_head(p, ITEM_FILE, FILE_FIXED_BYTES + s->handle.len + path_len);
	cmek_store32(p, s->handle.type);
	cmek_store32(p + 4, s->handle.len);
	memcpy(p + 8, s->handle.bytes, s->handle.len);
	p += 8 + s->handle.len;
	cmek_store32(p, (uint32_t)path_len);
	memcpy(p + 4, s->path, path_len);
	p += 4 + path_len;
	memcpy(p, s->file_id, CMEK_FILE_ID_LEN);
	cmek_store32(p + 16, s->flags);
	cmek_store64(p + 20, s->plain_size);
	cmek_store64(p + 28, (uint64_t)s->mtime.tv_sec);
	cmek_store32(p + 36, (uint32_t)s->mtime.tv_nsec);
	p += 40;
	for (i = 0; i < s->n_items; i++) {
		const struct cmek_item *item = s->items + i;
		size_t body = item_body_bytes(item->type);

		p = put_item_head(p, item->type, body);
		cmek_store64(p, item->first);
		if (item->type == CMEK_ITEM_MAP) {
			cmek_store32(p + 8, (uint32_t)(item->image + s->image_base));
		} else if (item->type == CMEK_ITEM_BLOCK) {
			cmek_store32(p + 8, (uint32_t)item->count);
			cmek_store32(p + 12, (uint32_t)(item->image + s->image_base));
		} else {
			cmek_store64(p + 8, item->count);
		}
		p += body;
	}
	return p;
}

/* Head and volume; the images come behind them. */
static void record_aad(const struct cmek_record_id *id, const uint8_t *head, struct iovec aad[2])
{
	aad[0] = (struct iovec){ (void *)(uintptr_t)head, RECORD_AAD_BYTES };
	aad[1] = (struct iovec){ (void *)(uintptr_t)id->volume, sizeof(id->volume) };
}

int cmek_record_encode(struct cmek_keyring *ring, const struct cmek_record_id *id,
		       const struct cmek_section *const *sections, size_t n, const struct iovec *images, int n_images,
		       uint8_t *buf)
{
	size_t i, meta_len = sections_bytes(sections, n), head_bytes = cmek_record_meta_bytes(sections, n);
	uint8_t *p = buf + CMEK_RECORD_HEAD_BYTES;
	struct iovec aad[2 + CMEK_RECORD_PIECES];
	struct cmek_seal_right right;
	size_t images_bytes = 0;
	int k, r;

	if (meta_len > CMEK_RECORD_META_MAX || n_images > CMEK_RECORD_PIECES)
		return -E2BIG;
	r = cmek_keyring_seal_right(ring, 1, &right);
	if (r < 0)
		return r;
	record_aad(id, buf, aad);
	for (k = 0; k < n_images; k++) {
		aad[2 + k] = images[k];
		images_bytes += images[k].iov_len;
	}
	memset(buf, 0, CMEK_RECORD_HEAD_BYTES);
	memcpy(buf, record_magic, sizeof(record_magic));
	cmek_store32(buf + 8, right.dek);
	cmek_store32(buf + 12, (uint32_t)meta_len);
	memcpy(buf + 16, right.salt, CMEK_SALT_LEN);
	cmek_store64(buf + 32, right.first);
	cmek_store64(buf + 40, id->seq);
	cmek_store64(buf + 48, head_bytes + images_bytes);
	memcpy(buf + 56, id->mount_id, 16);
	for (i = 0; i < n; i++)
		p = put_section(sections[i], p);
	memset(p, 0, head_bytes - CMEK_RECORD_HEAD_BYTES - meta_len);
	return seal(ring, &right, aad, 2 + n_images, buf + CMEK_RECORD_HEAD_BYTES, meta_len, buf + RECORD_TAG);
}

int cmek_record_peek(const uint8_t head[CMEK_RECORD_HEAD_BYTES], const struct cmek_record_id *id,
		     uint64_t *ret_bytes)
{
	uint64_t bytes = cmek_load64(head + 48);

	if (memcmp(head, record_magic, sizeof(record_magic)) != 0 || cmek_load64(head + 40) != id->seq ||
	    memcmp(head + 56, id->mount_id, 16) != 0 || bytes == 0 || bytes % CMEK_JOURNAL_UNIT != 0 ||
	    bytes < CMEK_RECORD_HEAD_BYTES + (uint64_t)cmek_load32(head + 12))
		return -EBADMSG;
	*ret_bytes = bytes;
	return 0;
}

static int get_file(struct cmek_reader *in, struct cmek_section *section)
{
	const uint8_t *p, *fixed;
	uint32_t path_len;

	section->handle.type = cmek_read32(in);
	section->handle.len = cmek_read32(in);
	if (section->handle.len > CMEK_HANDLE_MAX)
		return -EBADMSG;
	p = cmek_read_bytes(in, section->handle.len);
	path_len = cmek_read32(in);
	if (p == NULL || in->bad)
		return -EBADMSG;
	memcpy(section->handle.bytes, p, section->handle.len);
	p = cmek_read_bytes(in, path_len);
	fixed = cmek_read_bytes(in, 40);
	if (p == NULL || fixed == NULL || in->left != 0 || memchr(p, 0, path_len) != NULL)
		return -EBADMSG;
	section->path = strndup((const char *)p, path_len);
	if (section->path == NULL)
		return -ENOMEM;
	memcpy(section->file_id, fixed, CMEK_FILE_ID_LEN);
	section->flags = cmek_load32(fixed + 16);
	section->plain_size = cmek_load64(fixed + 20);
	section->mtime.tv_sec = (time_t)cmek_load64(fixed + 28);
	section->mtime.tv_nsec = (long)cmek_load32(fixed + 36);
	return section->flags & ~(uint32_t)FILE_FLAGS_KNOWN || section->mtime.tv_nsec > 999999999 ? -EBADMSG : 0;
}

static int get_item(struct cmek_reader *in, unsigned type, uint64_t images_units, struct cmek_section *section)
{
	struct cmek_item item = { (enum cmek_item_type)type, cmek_read64(in), CMEK_MAP_BYTES, 0 };

	if (type == CMEK_ITEM_BLOCK)
		item.count = cmek_read32(in);
	if (type == CMEK_ITEM_MAP || type == CMEK_ITEM_BLOCK) {
		item.image = cmek_read32(in);
		if (item.count == 0 || item.count > CMEK_BLOCK_MAX || item.image > images_units ||
		    (item.count + CMEK_JOURNAL_UNIT - 1) / CMEK_JOURNAL_UNIT > images_units - item.image)
			return -EBADMSG;
	} else {
		item.count = cmek_read64(in);
		if (item.first > UINT64_MAX - item.count)
			return -EBADMSG;
	}
	if (in->bad || in->left != 0)
		return -EBADMSG;
	return cmek_section_add(section, item.type, item.first, item.count, item.image);
}

/* Number of FILE items, so that the array is made once. */
static size_t count_files(struct cmek_reader in)
{
	size_t n = 0;

	while (in.left > 0 && !in.bad) {
		n += cmek_read16(&in) == ITEM_FILE;
		(void)cmek_read16(&in);
		(void)cmek_read_bytes(&in, cmek_read32(&in));
	}
	return n;
}

static int get_sections(struct cmek_reader in, uint64_t images_units, struct cmek_section *sections, size_t *ret_n)
{
	size_t n = 0;
	int r = 0;

	while (r == 0 && in.left > 0) {
		unsigned type = cmek_read16(&in), reserved = cmek_read16(&in);
		uint32_t len = cmek_read32(&in);
		const uint8_t *body = cmek_read_bytes(&in, len);
		struct cmek_reader body_in;

		if (body == NULL || reserved != 0)
			return -EBADMSG;
		body_in = cmek_reader_over(body, len);
		*ret_n = n; /* what is freed on failure */
		if (type == ITEM_FILE) {
			*ret_n = ++n;
			r = get_file(&body_in, sections + n - 1);
		} else if (n > 0 && item_body_bytes((enum cmek_item_type)type) == len && len != 0) {
			r = get_item(&body_in, type, images_units, sections + n - 1);
		} else {
			r = -EBADMSG;
		}
	}
	*ret_n = n;
	return r;
}

int cmek_record_decode(struct cmek_keyring *ring, const struct cmek_record_id *id, uint8_t *buf, size_t bytes,
		       struct cmek_section **ret_sections, size_t *ret_n, const uint8_t **ret_images)
{
	struct cmek_section *sections;
	uint32_t meta_len;
	struct cmek_reader in;
	struct iovec aad[3];
	uint64_t said;
	size_t head_bytes, i, n = 0;
	int r = bytes < CMEK_RECORD_HEAD_BYTES ? -EBADMSG : cmek_record_peek(buf, id, &said);

	if (r < 0 || said != bytes)
		return -EBADMSG;
	meta_len = cmek_load32(buf + 12);
	if (meta_len > CMEK_RECORD_META_MAX)
		return -EBADMSG;
	head_bytes = ((size_t)CMEK_RECORD_HEAD_BYTES + meta_len + CMEK_JOURNAL_UNIT - 1) / CMEK_JOURNAL_UNIT *
		     CMEK_JOURNAL_UNIT;
	if (head_bytes > bytes || !cmek_is_zero(buf + RECORD_RESERVED, CMEK_RECORD_HEAD_BYTES - RECORD_RESERVED) ||
	    !cmek_is_zero(buf + CMEK_RECORD_HEAD_BYTES + meta_len, head_bytes - CMEK_RECORD_HEAD_BYTES - meta_len))
		return -EBADMSG;
	record_aad(id, buf, aad);
	aad[2] = (struct iovec){ buf + head_bytes, bytes - head_bytes };
	r = open_sealed(ring, cmek_load32(buf + 8), buf + 16, cmek_load64(buf + 32), aad, 3,
			buf + CMEK_RECORD_HEAD_BYTES, meta_len, buf + RECORD_TAG);
	if (r < 0)
		return r;
	in = cmek_reader_over(buf + CMEK_RECORD_HEAD_BYTES, meta_len);
	n = count_files(in);
	sections = calloc(n + 1, sizeof(*sections));
	if (sections == NULL)
		return -ENOMEM;
	r = get_sections(in, (bytes - head_bytes) / CMEK_JOURNAL_UNIT, sections, &n);
	if (r == -EBADMSG)
		r = -EUCLEAN; /* ours, and wrong: not how a log ends */
	if (r < 0) {
		for (i = 0; i < n; i++)
			cmek_section_done(sections + i);
		free(sections);
		return r;
	}
	*ret_sections = sections;
	*ret_n = n;
	*ret_images = buf + head_bytes;
	return 0;
}
