/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The arithmetic of store files that is more than one expression: sizes there and back. No I/O, no state.
 */
#include "config.h"

#include "fs/content/block_map.h"
#include "fs/content/content.h"

uint64_t cmek_plain_size_max(uint32_t block_size)
{
	return UINT32_MAX * cmek_group_plain_bytes(block_size); /* group counts fit the u32 of an absent range */
}

static uint32_t clamp_len(uint64_t plain_size, uint64_t start, uint32_t full)
{
	if (start >= plain_size)
		return 0;
	return plain_size - start < full ? (uint32_t)(plain_size - start) : full;
}

uint32_t cmek_group_plain_len(uint32_t block_size, uint64_t plain_size, uint64_t group)
{
	uint32_t full = (uint32_t)cmek_group_plain_bytes(block_size);

	return clamp_len(plain_size, group * full, full);
}

uint32_t cmek_block_plain_len(uint32_t block_size, uint64_t plain_size, uint64_t block)
{
	return clamp_len(plain_size, block * block_size, block_size);
}

uint64_t cmek_content_plain_size(uint32_t block_size, uint64_t stored_size)
{
	uint64_t group_stored = cmek_group_stored_bytes(block_size);
	uint64_t group = stored_size / group_stored;
	uint64_t rest = stored_size % group_stored;

	return group * cmek_group_plain_bytes(block_size) + (rest > CMEK_MAP_BYTES ? rest - CMEK_MAP_BYTES : 0);
}
