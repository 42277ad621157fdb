/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_CONTENT_REPLAY_STATE_H
#define CMEK_CONTENT_REPLAY_STATE_H

#include <sys/types.h>

#include "fs/content/journal_record.h"

/*
 * What the records of a journal come to: for each file its last size, and for each place in it the last image. Images
 * are named by where they are in the journal, so what is kept does not grow with them. No I/O. One thread at a time;
 * shared by readers once it is settled.
 */

/* A place in a stored file: a group's map page, or a block. */
#define CMEK_PLACE_PAGE(group) ((uint64_t)(group) << 1 | 1)
#define CMEK_PLACE_BLOCK(block) ((uint64_t)(block) << 1)

/* The last image of a place. */
struct cmek_last_image {
	uint64_t place;
	uint64_t journal_off;
	uint32_t len; /* 0: there is none, or it is outdated */
};

/* The last state of one file. */
struct cmek_last_state {
	struct cmek_last_state *next;      /* in the order of their first records */
	struct cmek_last_state *hash_next;
	struct cmek_file_handle handle;
	char *path; /* of the newest record */
	/* The file ids that its records name, the newest last; what the store has is one of them. Owned. */
	uint8_t (*ids)[CMEK_FILE_ID_LEN];
	size_t n_ids;
	bool new_id;     /* its content was new in one of the records */
	bool unfinished; /* the last record said what was about to be done, or was a part of more: back to plain_size */
	bool has_mtime;
	uint64_t plain_size;
	struct timespec mtime;
	/* Open addressing; n_slots is 0 or a power of two. */
	struct cmek_last_image *images;
	size_t n_slots, n_used;
	/* replay's own: what it found of it in the store */
	bool sought;
	dev_t dev;
	ino_t ino;
};

struct cmek_last_states {
	uint32_t block_size;
	struct cmek_last_state *first, **end;
	struct cmek_last_state **buckets;
	size_t n;
};

/* 0 or -ENOMEM. */
int cmek_last_states_init(struct cmek_last_states *states, uint32_t block_size);
void cmek_last_states_done(struct cmek_last_states *states);

/*
 * Adds what the next record says of one file; its first image is at images_off of the journal. Takes section->path.
 * -EUCLEAN: it makes no sense. -ENOMEM.
 */
int cmek_last_states_add(struct cmek_last_states *states, struct cmek_section *section, uint64_t images_off);
/* After the last record: what lies behind the sizes is dropped. */
void cmek_last_states_settle(struct cmek_last_states *states);

/* The image of a place, or NULL. Valid until the next change. */
const struct cmek_last_image *cmek_last_image_find(const struct cmek_last_state *state, uint64_t place);
/* One of the ids that records name. */
bool cmek_last_state_has_id(const struct cmek_last_state *state, const uint8_t id[CMEK_FILE_ID_LEN]);

#endif
