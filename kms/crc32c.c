/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * CRC-32C, bit by bit: it runs over a hundred bytes a mount, some of them key bytes, which a table in the cache would
 * tell apart. It knows nothing of what it sums.
 */
#include "config.h"

#include "kms/crc32c.h"

#define POLYNOMIAL 0x82f63b78u /* 0x1edc6f41, reflected */

uint32_t cmek_crc32c(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint32_t crc = 0xffffffffu;

	for (; len > 0; len--) {
		crc ^= *p++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (POLYNOMIAL & -(crc & 1));
	}
	return ~crc;
}
