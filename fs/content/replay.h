/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_CONTENT_REPLAY_H
#define CMEK_CONTENT_REPLAY_H

#include "fs/content/journal_record.h"
#include "fs/content/overlay.h"

/*
 * Recovery: brings every file that a journal names to its final state, then marks the journal empty. Idempotent.
 * Runs before anything else reads the store; one thread at a time.
 */
struct cmek_replay_params {
	int store_fd;  /* the store's directory, borrowed */
	int meta_fd;   /* STORE/.cmekfs, borrowed */
	uint8_t volume[16];
	uint32_t block_size;
	bool dry_run;  /* read and count only */
	/*
	 * Goes on where a journal is damaged: all that is whole of it counts, and it is kept in .cmekfs/lost/. Without it
	 * such a journal is an error, and nothing is changed.
	 */
	bool salvage;
	/* A line for the log: what was found that is worth telling. May be NULL. */
	void (*report)(void *arg, const char *text);
	void *arg;
};

struct cmek_replay_result {
	unsigned journals;   /* that were not empty */
	unsigned damaged;    /* of them, with salvage */
	uint64_t records, files, pages, blocks;
	uint64_t rolled_back; /* files whose fresh data had no record: back to their sealed size */
	uint64_t gone;       /* files that were deleted since */
	uint64_t lost;       /* files not found: the journal is kept in .cmekfs/lost/ */
	bool store_failed;   /* on failure: the store could not take it (ENOSPC, EIO, EROFS), an overlay can serve it */
};

/*
 * Kinds: tampered (a journal that does not open, or with a record missing in its middle), bad-format (an authentic
 * record that makes no sense), system (the store failed; the journal is kept and nothing is lost), unsupported (a
 * journal under a DEK that the header does not have).
 */
int cmek_replay(struct cmek_keyring *ring, const struct cmek_replay_params *params,
		struct cmek_replay_result *ret_result, struct cmek_error *err);

/*
 * The same for a read-only mount: writes nothing, and *ret_overlay shows the final state (NULL: all journals are empty;
 * freed by the caller). At most one journal may be not empty, as cmekfs leaves it, else unsupported.
 */
int cmek_replay_overlay(struct cmek_keyring *ring, const struct cmek_replay_params *params,
			struct cmek_overlay **ret_overlay, struct cmek_replay_result *ret_result, struct cmek_error *err);

#endif
