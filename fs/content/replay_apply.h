/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_CONTENT_REPLAY_APPLY_H
#define CMEK_CONTENT_REPLAY_APPLY_H

#include "fs/content/replay.h"
#include "fs/content/replay_log.h"

/*
 * The second step of replay: finds the files of the last states in the store, and brings each to its state or, for a
 * read-only mount, notes which file it is. One thread at a time.
 */
struct cmek_replay_apply {
	const struct cmek_replay_params *params;
	struct cmek_replay_result *result; /* counted up */
	const struct cmek_replay_log *log;
	bool write; /* else the states get dev and ino of their files, and the store stays as it is */
	/* answered */
	uint64_t lost; /* files of this journal that were not found */
};

/* 0, or -errno of the store: what was not written is as it was, and all of it can be tried again. */
int cmek_replay_apply(struct cmek_replay_apply *apply, struct cmek_last_states *states);

#endif
