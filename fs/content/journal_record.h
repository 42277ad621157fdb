/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_CONTENT_JOURNAL_RECORD_H
#define CMEK_CONTENT_JOURNAL_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <time.h>

#include "fs/volume/keyring.h"

/*
 * Codec of the journal's parts (doc/format.md section 7): superblocks and records, sealed bytes <-> structs. No I/O.
 * What a record says of one file is a section; the same struct is built by a commit, applied to the store by it, and
 * found again by replay. Thread-safe on different objects.
 */
#define CMEK_JOURNAL_UNIT 4096u
#define CMEK_JOURNAL_RECORDS_AT (2 * CMEK_JOURNAL_UNIT) /* behind the two superblocks */
#define CMEK_HANDLE_MAX 128u
#define CMEK_RECORD_HEAD_BYTES 128u
#define CMEK_RECORD_META_MAX (UINT32_C(16) << 20)

/* A store file handle (name_to_handle_at); len 0 = the store has none. */
struct cmek_file_handle {
	uint32_t type;
	uint32_t len;
	uint8_t bytes[CMEK_HANDLE_MAX];
};

struct cmek_journal_super {
	uint8_t mount_id[16];
	uint64_t sequence;
	uint64_t length_bytes;
	uint64_t tail_off;
	uint64_t tail_seq;
	uint32_t dek_next;
	bool empty;
	struct cmek_file_handle handle;
};

enum cmek_item_type { CMEK_ITEM_MAP = 2, CMEK_ITEM_BLOCK = 3, CMEK_ITEM_INPLACE = 4, CMEK_ITEM_PUNCH = 5 };

struct cmek_item {
	enum cmek_item_type type;
	uint64_t first; /* group index of MAP, else block index */
	uint64_t count; /* MAP: 4096; BLOCK: stored bytes; INPLACE, PUNCH: blocks */
	uint64_t image; /* MAP, BLOCK: offset in units of 4096 from the record's first image */
};

#define CMEK_FILE_TOUCH 1u
#define CMEK_FILE_NEW_ID 2u
#define CMEK_FILE_MTIME 4u
#define CMEK_FILE_PART 8u

struct cmek_section {
	struct cmek_file_handle handle;
	char *path; /* stored path relative to the store, "" if not known; owned */
	uint8_t file_id[CMEK_FILE_ID_LEN];
	uint32_t flags;
	uint64_t plain_size;
	struct timespec mtime;
	uint64_t image_base; /* added to the items' image offsets when encoded; 0 when decoded */
	struct cmek_item *items;
	size_t n_items, capacity;
};
void cmek_section_done(struct cmek_section *section);
/* 0 or -ENOMEM. */
int cmek_section_add(struct cmek_section *section, enum cmek_item_type type, uint64_t first, uint64_t count,
		     uint64_t image);

/* What a section adds to a record's meta data. */
size_t cmek_section_bytes(const struct cmek_section *section);
/* Bytes of the record's head and meta data for these sections, a multiple of 4096: the images follow. */
size_t cmek_record_meta_bytes(const struct cmek_section *const *sections, size_t n);

/*
 * Seals head and meta data into buf (cmek_record_meta_bytes() long). images: pieces of whole units of 4096 bytes, at
 * most CMEK_RECORD_PIECES of them. -E2BIG when the meta data would exceed CMEK_RECORD_META_MAX.
 */
#define CMEK_RECORD_PIECES 64
struct cmek_record_id {
	uint8_t volume[16];
	uint8_t mount_id[16];
	uint64_t seq;
};
int cmek_record_encode(struct cmek_keyring *ring, const struct cmek_record_id *id,
		       const struct cmek_section *const *sections, size_t n, const struct iovec *images, int n_images,
		       uint8_t *buf);

/*
 * The clear head of what may be a record: -EBADMSG when it is none, or not the one with this id (its mount and
 * sequence number). *ret_bytes: length of the whole record, a multiple of 4096, not yet trusted.
 */
int cmek_record_peek(const uint8_t head[CMEK_RECORD_HEAD_BYTES], const struct cmek_record_id *id,
		     uint64_t *ret_bytes);
/*
 * Opens a whole record of `bytes` bytes. *ret_sections: a malloced array of n malloced-inside sections (free each by
 * cmek_section_done()); *ret_images: where in buf the images begin. -EBADMSG when it does not authenticate, -EUCLEAN when
 * it does and is not well formed; -ENOKEY, -EKEYREVOKED from the ring.
 */
int cmek_record_decode(struct cmek_keyring *ring, const struct cmek_record_id *id, uint8_t *buf, size_t bytes,
		       struct cmek_section **ret_sections, size_t *ret_n, const uint8_t **ret_images);

int cmek_journal_super_encode(struct cmek_keyring *ring, const uint8_t volume[16],
			      const struct cmek_journal_super *super, uint8_t buf[CMEK_JOURNAL_UNIT]);
/* -EBADMSG, -ENOKEY, -EKEYREVOKED. */
int cmek_journal_super_decode(struct cmek_keyring *ring, const uint8_t volume[16],
			      const uint8_t buf[CMEK_JOURNAL_UNIT], struct cmek_journal_super *ret_super);

#endif
