/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_CONTENT_BLOCK_MAP_H
#define CMEK_CONTENT_BLOCK_MAP_H

#include <stdint.h>

/*
 * Where things lie in a store file (doc/format.md section 5.1). Pure arithmetic on trusted block sizes
 * (4096..65536); thread-safe.
 */
#define CMEK_MAP_BYTES 4096u
#define CMEK_GROUP_BLOCKS 96u
#define CMEK_BLOCK_MIN 4096u
#define CMEK_BLOCK_MAX 65536u

/* Plain bytes of a full group; stored bytes of one. */
static inline uint64_t cmek_group_plain_bytes(uint32_t block_size)
{
	return (uint64_t)CMEK_GROUP_BLOCKS * block_size;
}

static inline uint64_t cmek_group_stored_bytes(uint32_t block_size)
{
	return CMEK_MAP_BYTES + cmek_group_plain_bytes(block_size);
}

/* Stored offset of a group's map page, and of a block. */
static inline uint64_t cmek_map_stored_off(uint32_t block_size, uint64_t group)
{
	return group * cmek_group_stored_bytes(block_size);
}

static inline uint64_t cmek_block_stored_off(uint32_t block_size, uint64_t block)
{
	uint64_t group = block / CMEK_GROUP_BLOCKS;

	return cmek_map_stored_off(block_size, group) + CMEK_MAP_BYTES + (block - group * CMEK_GROUP_BLOCKS) * block_size;
}

/* Number of groups of a file; its stored size. */
static inline uint64_t cmek_group_count(uint32_t block_size, uint64_t plain_size)
{
	uint64_t group_plain = cmek_group_plain_bytes(block_size);

	return plain_size / group_plain + (plain_size % group_plain != 0);
}

static inline uint64_t cmek_stored_size(uint32_t block_size, uint64_t plain_size)
{
	return cmek_group_count(block_size, plain_size) * CMEK_MAP_BYTES + plain_size;
}

/* The largest plain size: 2^32 - 1 groups. */
uint64_t cmek_plain_size_max(uint32_t block_size);

/* Plain bytes of a group, and of a block, in a file of plain_size; 0 behind its end. */
uint32_t cmek_group_plain_len(uint32_t block_size, uint64_t plain_size, uint64_t group);
uint32_t cmek_block_plain_len(uint32_t block_size, uint64_t plain_size, uint64_t block);

#endif
