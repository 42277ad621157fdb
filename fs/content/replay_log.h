/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_CONTENT_REPLAY_LOG_H
#define CMEK_CONTENT_REPLAY_LOG_H

#include "fs/content/replay_state.h"

/*
 * One journal as a mount left it: which superblock counts, which records there are, and whether one is missing. Only
 * reads. One thread at a time.
 */
struct cmek_replay_log {
	/* set by the caller */
	struct cmek_keyring *ring;
	uint8_t volume[16];
	int fd; /* of the journal, borrowed */
	/* by cmek_replay_log_open() */
	struct cmek_journal_super super;
	bool one_super; /* the other copy is bad, and may have been the newer one */
	bool handles;   /* the journal is where it was made, so its handles are good */
	/* by cmek_replay_log_read() */
	uint64_t n_records;
	bool damaged;         /* a record is missing that is no torn end */
	uint64_t missing_seq; /* the first of them */
	uint64_t n_behind;    /* whole records behind it */
};

/*
 * Finds the newest good superblock; one copy that is bad or can't be read does not matter. -ENODATA: the file never
 * became a journal (it was still being written at a crash). -EBADMSG: no copy authenticates; -EIO: none can be read;
 * -ENOKEY, -EKEYREVOKED from the ring.
 */
int cmek_replay_log_open(struct cmek_replay_log *log);
/*
 * Reduces all whole records, from the tail on, to states, which it settles. Those behind a missing one count, too: it
 * is the caller who goes on, or not, with a log that is damaged. -EUCLEAN: an authentic record makes no sense. -ENOMEM.
 */
int cmek_replay_log_read(struct cmek_replay_log *log, struct cmek_last_states *states);

#endif
