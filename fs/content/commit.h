/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_CONTENT_COMMIT_H
#define CMEK_CONTENT_COMMIT_H

#include "fs/content/journal.h"
#include "fs/content/ofile.h"

/* One group in a commit, with a reference. */
struct cmek_taken_group {
	struct cmek_group *group;
	/* from the file's list, and not yet or already looked at; or just needed */
	enum { CMEK_TAKEN_LISTED, CMEK_TAKEN_CLEANED, CMEK_TAKEN_BORROWED } was;
	uint64_t stored[2]; /* bit i: the page of this commit has an entry for block i */
	uint64_t fresh[2];  /* those of them that were not live before */
	uint64_t version;   /* held blocks up to this version are in this commit */
};

/*
 * One commit of one file, on its way from memory to the store. Used inside the content layer only.
 *   cmek_commit_prepare -> cmek_commit_log -> cmek_commit_apply -> cmek_commit_finish
 * file.commit_lock is held from prepare to finish. prepare and apply need file.lock (either way), log must not hold it
 * shared for long flushes to be harmless to others, but may be called with it held exclusively (truncation).
 */
struct cmek_commit {
	struct cmek_ofile *file;
	struct cmek_section section;
	uint8_t *images;
	size_t images_bytes, images_capacity;
	struct cmek_taken_group *groups;
	size_t n_groups;
	bool size;     /* size or contents change: the first group's page is among the images */
	bool mtime;    /* the modification time is to be set */
	bool in_place; /* fresh data lies in the store already and must be flushed before the record */
	bool free_holes; /* the store shall free what the section calls punched */
	bool partial;  /* not all that waits: more than one record can take, the first group comes with the last part */
	bool again;    /* another commit of the file has to follow at once */
	bool retouch;  /* fresh data has gone in place that the record does not know */
	bool unlogged; /* nothing to recover: the file has no name any more, or its first page can't be read */
	bool tried;    /* the journal may have it, or, without one, the store */
	bool logged;   /* seq is a durable record */
	uint64_t seq;
};

/* Takes everything that waits and makes section and images of it. On failure it is all given back. */
int cmek_commit_prepare(struct cmek_ofile *file, struct cmek_commit *commit);
/*
 * Makes n prepared commits durable in the journal, with as few flushes as can be; does nothing without one. results[i]:
 * 0, or -errno, and then that commit is given back.
 */
#define CMEK_COMMITS_MAX 32
void cmek_commit_log(struct cmek_commit *commits, size_t n, int *results);
/* Writes the images in place, and size and time of the store file. */
int cmek_commit_apply(struct cmek_commit *commit);
/*
 * Lets go of what is in the store now. When r (of apply) is an error: with a durable record all of it is served from
 * memory, for good, and the volume turns read-only; without, it waits for the next commit. Frees the commit.
 */
void cmek_commit_finish(struct cmek_commit *commit, int r);

/*
 * The parts of prepare, in commit_gather.c. cmek_commit_take() takes what there is off the file's account. More than a record
 * takes: the first group, and those at the file's ends, are left for a later part. cmek_commit_gather() makes items and
 * images of what was taken. 0, -ENOMEM, or what sealing or a store that fails gives.
 */
int cmek_commit_take(struct cmek_commit *commit);
int cmek_commit_gather(struct cmek_commit *commit);
/* Everything back on the file's account: the commit did not happen, or not in place. Frees the commit. */
void cmek_commit_give_back(struct cmek_commit *commit);
void cmek_commit_free(struct cmek_commit *commit);

#endif
