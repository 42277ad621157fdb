/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_CONTENT_JOURNAL_FILE_H
#define CMEK_CONTENT_JOURNAL_FILE_H

#include "fs/content/journal.h"

/*
 * The journal as a file: made, taken over, and its superblocks written. Knows no records. One thread at a time.
 */
struct cmek_journal_file {
	struct cmek_keyring *ring;
	struct cmek_journal_params params; /* length_bytes is what the file has */
	int fd;
	struct cmek_file_handle handle;
	uint64_t super_seq; /* of the newest superblock */
};

/*
 * Opens `.cmekfs/journal.0`, makes it or makes it longer, and marks it empty, durably. dirfd: of STORE/.cmekfs.
 * To be ended by cmek_journal_file_close(), also after a failure. Kinds: usage (too short), system.
 */
int cmek_journal_file_open(struct cmek_keyring *ring, int dirfd, const struct cmek_journal_params *params,
			   struct cmek_journal_file *ret_file, struct cmek_error *err);
void cmek_journal_file_close(struct cmek_journal_file *file);

/* The next superblock, durable on return. 0 or -errno. */
int cmek_journal_file_write_super(struct cmek_journal_file *file, bool empty, uint64_t tail_off, uint64_t tail_seq);

#endif
