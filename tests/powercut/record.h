/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TESTS_POWERCUT_RECORD_H
#define CMEK_TESTS_POWERCUT_RECORD_H

#include <stdint.h>

/*
 * The log of a recording: heads, each followed by its data where it has any, in the order in which a disk could have
 * finished the requests. Read on the machine that wrote it, so in host order. cuts.py reads the same heads.
 *
 * A flush makes durable all writes and discards that stand before it. A request that was under way together with a
 * flush stands behind it: the flush promised nothing about it.
 */
enum pc_record_type {
	PC_WRITE = 1,	/* length bytes of data follow: now at offset of the image */
	PC_FLUSH = 2,	/* no data; offset and length are 0 */
	PC_DISCARD = 3, /* no data: length bytes at offset are now zeros */
	PC_MARK = 4,	/* length bytes of text follow: a workload says that it got this far; offset is 0 */
};

#define PC_RECORD_MAGIC 0x31524350u /* "PCR1" */

struct pc_record_head {
	uint32_t magic;
	uint32_t type;
	uint64_t offset;
	uint64_t length;
};

_Static_assert(sizeof(struct pc_record_head) == 24, "cuts.py relies on it");

#endif
