/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_CONTENT_MAP_PAGE_H
#define CMEK_CONTENT_MAP_PAGE_H

#include <stdint.h>

#include "fs/content/block_crypt.h"
#include "fs/content/block_map.h"

/*
 * Codec of the map page (doc/format.md section 5.2): 4096 sealed bytes <-> struct cmek_map. No I/O. Thread-safe.
 */
#define CMEK_MAP_ENTRIES_BYTES (CMEK_GROUP_BLOCKS * CMEK_ENTRY_BYTES)
#define CMEK_MAP_RANGES 10u

/* Groups first..first+count-1 may be absent. */
struct cmek_map_range {
	uint64_t first;
	uint32_t count;
};

/* The trailer, in memory. The fields of group 0 are zero in all other groups. */
struct cmek_map_trailer {
	uint64_t group;
	uint8_t mount_id[16];
	uint64_t record_seq;
	uint32_t plain_bytes;
	/* group 0 only */
	uint64_t plain_size;
	uint64_t group_count;
	struct cmek_map_range absent[CMEK_MAP_RANGES];
	uint32_t n_absent;
};

/* The clear head of a page: what one needs to know to derive its key. */
struct cmek_map_head {
	uint16_t dek;
	uint8_t salt[CMEK_SALT_LEN];
	uint64_t counter;
	uint8_t file_id[CMEK_FILE_ID_LEN];
};

/* Magic, version and ranges of the head. -EBADMSG when they are not a map page's. */
int cmek_map_head_decode(const uint8_t page[CMEK_MAP_BYTES], struct cmek_map_head *ret_head);

/*
 * Opens a page that should be that of `group`; key is the content key that the head names. entries gets 3840 bytes.
 * -EBADMSG when it does not authenticate or what it says is not valid for that group and block size.
 */
int cmek_map_open(const struct cmek_secret *key, const struct cmek_map_head *head, uint32_t block_size, uint64_t group,
		  const uint8_t page[CMEK_MAP_BYTES], uint8_t entries[CMEK_MAP_ENTRIES_BYTES],
		  struct cmek_map_trailer *ret_trailer);
/* Seals one with counter right->first. key: the content key of right and file_id. 0 or -EIO. */
int cmek_map_seal(const struct cmek_secret *key, const struct cmek_seal_right *right,
		  const uint8_t file_id[CMEK_FILE_ID_LEN], const uint8_t entries[CMEK_MAP_ENTRIES_BYTES],
		  const struct cmek_map_trailer *trailer, uint8_t page[CMEK_MAP_BYTES]);

#endif
