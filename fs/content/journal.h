/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_CONTENT_JOURNAL_H
#define CMEK_CONTENT_JOURNAL_H

#include "fs/content/journal_record.h"

/*
 * The redo journal of a read-write mount (doc/format.md section 7): a ring of records in one preallocated file. Appends
 * of several threads share a record and a flush. Knows records and their order; knows nothing of files' contents.
 * Thread-safe.
 */
struct cmek_journal;

struct cmek_journal_host {
	void *arg;
	/* Flushes everything that was written in place (syncfs of the store). 0 or -errno. Called with no lock held. */
	int (*flush_store)(void *arg);
	/* A checkpoint failed: error, and what it means. */
	void (*report)(void *arg, int error, const char *what);
};

struct cmek_journal_params {
	uint8_t volume[16];
	uint8_t mount_id[16];
	uint64_t length_bytes; /* of the file, when it has to be made; 0 = 64 MiB */
	uint32_t dek_next;     /* the header's DEK high-water mark */
};
#define CMEK_JOURNAL_LENGTH_MIN (UINT64_C(32) << 20)
#define CMEK_JOURNAL_LENGTH_DEFAULT (UINT64_C(64) << 20)

/*
 * Makes `.cmekfs/journal.0` or takes the one that is there, which replay must have emptied; starts the checkpoint
 * thread (so: after the last fork). dirfd: of STORE/.cmekfs, borrowed. Kinds: system (ENOSPC: no room for it).
 */
int cmek_journal_open(struct cmek_keyring *ring, int dirfd, const struct cmek_journal_host *host,
		      const struct cmek_journal_params *params, struct cmek_journal **ret_journal,
		      struct cmek_error *err);
/* Checkpoints, marks it empty, stops the thread. Everything must have been applied. NULL allowed. */
int cmek_journal_close(struct cmek_journal *journal);

/* The most bytes of images one append may have. */
uint64_t cmek_journal_append_max(const struct cmek_journal *journal);

/* One section with its images (images_bytes: a multiple of 4096, at most cmek_journal_append_max()). */
struct cmek_journal_request {
	struct cmek_section *section;
	const uint8_t *images;
	size_t images_bytes;
	/* answered: */
	int result;   /* 0 or -errno */
	uint64_t seq; /* names the record for cmek_journal_applied() */
	/* the journal's own */
	struct cmek_journal_request *next;
	bool done;
};

/*
 * Appends n requests and returns when each is durable or has failed: -E2BIG, or -EIO and the like: it is not there, and
 * after a failed write or flush no later append succeeds either (what the disk has is not known any more). Waits for
 * room in the ring. Requests of one call, and of other threads, share records and flushes.
 */
void cmek_journal_append(struct cmek_journal *journal, struct cmek_journal_request *requests, size_t n);
/* All that this request said of its file is written in place (not flushed). Once per successful request. */
void cmek_journal_applied(struct cmek_journal *journal, uint64_t seq);

/* Frees every record that was applied, after a flush of the store. */
int cmek_journal_checkpoint(struct cmek_journal *journal);

/* The store handle of an open file; len 0 where the store has none or they can't be used. 0 or -errno. */
int cmek_handle_of(int fd, struct cmek_file_handle *ret_handle);

struct cmek_journal_status {
	uint64_t length_bytes, used_bytes;
	uint64_t records, appends, flushes, checkpoints;
	int error;
};
void cmek_journal_status(struct cmek_journal *journal, struct cmek_journal_status *ret_status);

#endif
