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
	uint64_t length_bytes; /* of the file; 0 = as it is, or when it has to be made a sixteenth of the store, 64 MiB at most */
	uint32_t block_size;   /* of the volume: a record must have room for two groups */
	uint32_t dek_next;     /* the header's DEK high-water mark */
};
#define CMEK_JOURNAL_LENGTH_MAX_DEFAULT (UINT64_C(64) << 20)
/* What the meta data of a record of one file may take beside its images. */
#define CMEK_JOURNAL_META_ROOM (UINT64_C(1) << 20)
/* The least length for a block size: 8 MiB for 4096, 32 MiB for 65536. */
uint64_t cmek_journal_length_min(uint32_t block_size);

/*
 * Makes `.cmekfs/journal.0` for the mounts to come (params->mount_id: any). Kinds as of cmek_journal_open(), and usage: it
 * is shorter than the least length.
 */
int cmek_journal_make(struct cmek_keyring *ring, int dirfd, const struct cmek_journal_params *params,
		      struct cmek_error *err);
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

/*
 * The most bytes of images all requests of one cmek_journal_append() may have together if they are more than one: who
 * waits for the room of one must not keep the records of others.
 */
uint64_t cmek_journal_batch_max(const struct cmek_journal *journal);

struct cmek_journal_touch;

/* One section with its images (images_bytes: a multiple of 4096, at most cmek_journal_append_max()). */
struct cmek_journal_request {
	struct cmek_section *section;
	const uint8_t *images;
	size_t images_bytes;
	struct cmek_journal_touch *ends; /* the touch of the file, if the record takes its place; NULL: none */
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

/*
 * The images of a durable request could not be written in place: its record stays. When it is in the way of new ones,
 * appends fail with -EIO instead of waiting, until it is applied after all.
 */
void cmek_journal_not_applied(struct cmek_journal *journal, uint64_t seq);

/*
 * Touches: a record that must be found by replay for as long as its file is being written in place, however long that
 * takes and whatever else is appended. The journal repeats it when the space of its record is wanted.
 * cmek_journal_touch() returns when it is durable, and takes over what section holds (zeroing it) on success.
 * -EAGAIN: there are as many as can be repeated; needed: whoever asks can't do without, so only the last room says no.
 * It is never repeated behind a record that ends it, which would take the file back to the older state.
 */
int cmek_journal_touch(struct cmek_journal *journal, struct cmek_section *section, bool needed,
		       struct cmek_journal_touch **ret_touch);
/*
 * A touch, needed, whose record is still the file's record seq, which has the same size and is not applied yet: nothing
 * is written before that one's space is wanted, so it waits for nobody. -EAGAIN, -ENOMEM.
 */
int cmek_journal_touch_with(struct cmek_journal *journal, struct cmek_section *section, uint64_t seq,
			    struct cmek_journal_touch **ret_touch);
/* A newer record of the file is durable, or the file is gone. NULL allowed. */
void cmek_journal_untouch(struct cmek_journal *journal, struct cmek_journal_touch *touch);

/* Frees every record that was applied, after a flush of the store. */
int cmek_journal_checkpoint(struct cmek_journal *journal);

/* The number of the next record, which will be sealed under the data key that is the active one by then. */
uint64_t cmek_journal_next_seq(struct cmek_journal *journal);
/*
 * Whatever the journal would be read for begins with record seq: frees those before it, and then writes both superblocks anew,
 * under the active data key. -EAGAIN: one of them is not applied yet, to be tried again; or the journal's error.
 */
int cmek_journal_renew(struct cmek_journal *journal, uint64_t seq);

/*
 * While the volume is locked the journal needs no key: suspend checkpoints, says in its superblock that it is empty if it
 * is, and touches the file no more; appends are refused with -EKEYREVOKED. What is not applied stays, for after
 * resume or for the next mount. Nothing may be appended meanwhile. 0 or -errno: suspended all the same.
 */
int cmek_journal_suspend(struct cmek_journal *journal);
/* 0 or -errno: then it is as after a failed write. */
int cmek_journal_resume(struct cmek_journal *journal);

/* The store handle of an open file; len 0 where the store has none or they can't be used. 0 or -errno. */
int cmek_handle_of(int fd, struct cmek_file_handle *ret_handle);

struct cmek_journal_status {
	uint64_t length_bytes, used_bytes;
	uint64_t records, appends, flushes, checkpoints;
	uint64_t appended_bytes; /* by appends */
	uint64_t oldest_ms; /* age of the oldest record, 0 = there is none */
	int error;
};
void cmek_journal_status(struct cmek_journal *journal, struct cmek_journal_status *ret_status);

#endif
