/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_CONTENT_ROOM_H
#define CMEK_CONTENT_ROOM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/*
 * The room that the store has left, and what is kept of it for users' data that was taken already: `bytes` that nobody else
 * may begin to use, and a file of as many (the reserve, STORE/.cmekfs/reserve), whose blocks are let go of when the store has
 * no others. Thread-safe; its lock is innermost but for what the host's function takes.
 */
struct cmek_room;

enum cmek_room_level {
	CMEK_ROOM_PLENTY,
	CMEK_ROOM_NEAR,  /* less than marks.near_bytes left: not much should wait above us that we don't know of */
	CMEK_ROOM_TIGHT, /* less than marks.tight_bytes: nothing should */
	CMEK_ROOM_FULL,  /* what is left is kept back: files don't grow any more, but for small ones */
	CMEK_ROOM_GONE,  /* half of that is used up: nothing new is begun */
};

/* How much may be left to users at the most in these states. */
struct cmek_room_marks {
	uint64_t near_bytes, tight_bytes;
};

struct cmek_room_host {
	void *arg;
	/* Another level than before. Called one at a time; it may log and send. NULL allowed. */
	void (*changed)(void *arg, enum cmek_room_level level);
	/* The reserve is being used, or is there again. NULL allowed. */
	void (*reserve)(void *arg, bool used);
};

#define CMEK_ROOM_BY_STORE UINT64_MAX
/* A part of the store's file system, and the most, for CMEK_ROOM_BY_STORE. */
#define CMEK_ROOM_PART 64
#define CMEK_ROOM_BYTES_MAX (UINT64_C(64) << 20)

/*
 * meta_fd: STORE/.cmekfs, borrowed while it runs. bytes: CMEK_ROOM_BY_STORE, or a number; with 0, and on a store that does not
 * say its size, nothing is kept, the level is always PLENTY, and a reserve that is there is removed. Where the store has no
 * fallocate(), or no room for it now, there is no reserve file yet and all else is the same.
 */
int cmek_room_new(int meta_fd, uint64_t bytes, const struct cmek_room_marks *marks, const struct cmek_room_host *host,
		  struct cmek_room **ret_room, struct cmek_error *err);
/* The reserve stays. NULL allowed. */
void cmek_room_free(struct cmek_room *room);

/*
 * How it is now, or was a moment ago (1 ms when it is tight, 50 with plenty). The store is asked, and a used reserve made again
 * when there is room. NULL: PLENTY.
 */
enum cmek_room_level cmek_room_level(struct cmek_room *room);

/* The same, and the store is asked in any case. */
enum cmek_room_level cmek_room_level_now(struct cmek_room *room);

/*
 * So many bytes more (or less) wait in memory for which the store will have to find room; while they are on their way, they
 * can count twice. NULL: nothing.
 */
void cmek_room_promise(struct cmek_room *room, int64_t more);
bool cmek_room_has_promised(struct cmek_room *room);

/*
 * Something that was taken already finds no room (-ENOSPC). True: the reserve was let go of, just now or a moment ago, so that
 * it is worth another try. NULL: false.
 */
bool cmek_room_use_reserve(struct cmek_room *room);

struct cmek_room_status {
	enum cmek_room_level level;
	uint64_t kept_bytes;    /* of what statvfs() says: not for users */
	uint64_t reserve_bytes; /* that the reserve should have; 0: none */
	uint64_t held_bytes;    /* that it has */
};
/* From memory, whatever the store is doing. NULL: plenty, and zeros. */
void cmek_room_status(struct cmek_room *room, struct cmek_room_status *ret_status);
const char *cmek_room_level_name(enum cmek_room_level level);

#endif
