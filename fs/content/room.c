/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Watches how much room the store has left, and keeps the reserve. It must not know what needs the room.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "fs/content/room.h"

#define RESERVE_NAME "reserve"
#define UNIT_BYTES 4096
/* None has more, and sums of such don't overflow. */
#define STORE_MAX (UINT64_MAX / 8)
/* What the store said holds for this long: less than it takes to write as much as the level has. */
static const unsigned known_ms[] = {
	[CMEK_ROOM_PLENTY] = 50, [CMEK_ROOM_NEAR] = 10, [CMEK_ROOM_TIGHT] = 1, [CMEK_ROOM_FULL] = 1,
	[CMEK_ROOM_GONE] = 1
};
/* Of what is kept: has to be freed beyond a mark before that counts as left behind. */
#define AGAIN_PART 8
/* Who finds no room within this time of the reserve's end was on the way then. */
#define JUST_USED_MS 1000
/* A store can be out of room for one thing and say that it has more: the reserve is not made again sooner. */
#define MAKE_AGAIN_MS 3000

struct cmek_room {
	/* constant */
	struct cmek_room_host host;
	uint64_t bytes;
	struct cmek_room_marks marks;
	int fd; /* of the reserve */
	/* read without the lock */
	atomic_int level;
	atomic_bool can_hold; /* the store can set blocks aside */
	atomic_uint_fast64_t held; /* of the reserve's blocks */
	atomic_uint_fast64_t next_ms; /* when the store is asked again */
	atomic_int_fast64_t promised;
	/* lock: the rest, and changes */
	pthread_mutex_t lock;
	uint64_t used_ms, make_ms; /* when it was let go of last; when it may be made again */
};

/* What is there under that name is ours only if nobody can have meant another file by it. */
static bool is_ours(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1 && st.st_uid == geteuid();
}

/* O_NONBLOCK: for a FIFO that somebody put there. */
static int open_reserve(int meta_fd, struct cmek_error *err)
{
	int fd = openat(meta_fd, RESERVE_NAME, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0 && is_ours(fd))
		return fd;
	if (fd >= 0)
		(void)close(fd); /* nothing was written */
	if (unlinkat(meta_fd, RESERVE_NAME, 0) < 0 && errno != ENOENT)
		return cmek_error_sys(err, errno, ".cmekfs/" RESERVE_NAME);
	fd = openat(meta_fd, RESERVE_NAME, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd >= 0 ? fd : cmek_error_sys(err, errno, ".cmekfs/" RESERVE_NAME);
}

/* As large as it should be, and with blocks for all of that. */
static bool is_whole(const struct cmek_room *room)
{
	struct stat st;

	return fstat(room->fd, &st) == 0 && (uint64_t)st.st_size == room->bytes && (uint64_t)st.st_blocks * 512 >= room->bytes;
}

/* One that can't let go of its blocks is none. */
static bool empty_reserve(struct cmek_room *room)
{
	room->held = 0;
	if (ftruncate(room->fd, 0) < 0)
		room->can_hold = false;
	return room->can_hold;
}

/* lock held, or not shared yet. */
static void make_reserve(struct cmek_room *room)
{
	if (fallocate(room->fd, 0, 0, (off_t)room->bytes) == 0) {
		room->held = room->bytes;
		return;
	}
	room->can_hold = errno != EOPNOTSUPP && errno != ENOSYS;
	(void)empty_reserve(room); /* half of it is of no use */
}

/* What is missing of the reserve, and what waits in memory. */
static uint64_t owed_bytes(const struct cmek_room *room)
{
	int64_t promised = atomic_load(&room->promised);

	return (room->can_hold ? room->bytes - room->held : 0) + (promised > 0 ? (uint64_t)promised : 0);
}

/* Of what the store has left a level begins here; once it has begun some more has to be freed, so that it lasts. */
static uint64_t mark_of(const struct cmek_room *room, enum cmek_room_level level)
{
	const uint64_t marks[] = {
		[CMEK_ROOM_NEAR] = room->bytes + room->marks.near_bytes,
		[CMEK_ROOM_TIGHT] = room->bytes + room->marks.tight_bytes,
		[CMEK_ROOM_FULL] = room->bytes,
		[CMEK_ROOM_GONE] = room->bytes / 2,
	};
	uint64_t more = atomic_load(&room->level) >= (int)level ? room->bytes / AGAIN_PART : 0;

	return owed_bytes(room) + marks[level] + more;
}

/* lock held, or not shared yet. What the store doesn't say now it says the next time. */
static void look(struct cmek_room *room)
{
	int level, before = atomic_load(&room->level);
	struct statvfs store;
	uint64_t left;

	if (fstatvfs(room->fd, &store) < 0)
		return;
	left = (uint64_t)store.f_bavail * store.f_frsize;
	if (room->can_hold && room->held == 0 && left > 2 * room->bytes && cmek_now_ms() >= room->make_ms) {
		make_reserve(room);
		if (room->held > 0) {
			left -= room->held;
			if (room->used_ms > 0 && room->host.reserve != NULL)
				room->host.reserve(room->host.arg, false);
			room->used_ms = 0;
		}
	}
	for (level = CMEK_ROOM_GONE; level > CMEK_ROOM_PLENTY && left > mark_of(room, (enum cmek_room_level)level); level--)
		;
	atomic_store(&room->level, level);
	if (level != before && room->host.changed != NULL)
		room->host.changed(room->host.arg, (enum cmek_room_level)level);
}

static uint64_t bytes_for(uint64_t bytes, const struct statvfs *store)
{
	uint64_t part = (uint64_t)store->f_blocks * store->f_frsize / CMEK_ROOM_PART;

	if (part == 0)
		return 0;
	if (bytes == CMEK_ROOM_BY_STORE)
		bytes = part < CMEK_ROOM_BYTES_MAX ? part : CMEK_ROOM_BYTES_MAX;
	return bytes - bytes % UNIT_BYTES;
}

int cmek_room_new(int meta_fd, uint64_t bytes, const struct cmek_room_marks *marks, const struct cmek_room_host *host,
		  struct cmek_room **ret_room, struct cmek_error *err)
{
	struct cmek_room *room;
	struct statvfs store;

	*ret_room = NULL;
	if (fstatvfs(meta_fd, &store) < 0)
		return cmek_error_sys(err, errno, "size of the store");
	bytes = bytes_for(bytes, &store);
	if (bytes == 0) {
		(void)unlinkat(meta_fd, RESERVE_NAME, 0); /* mostly there is none */
		return 0;
	}
	room = calloc(1, sizeof(*room));
	if (room == NULL)
		return cmek_error_sys(err, ENOMEM, "room of the store");
	room->host = *host;
	room->bytes = bytes;
	room->marks.near_bytes = marks->near_bytes < STORE_MAX ? marks->near_bytes : STORE_MAX;
	room->marks.tight_bytes = marks->tight_bytes < STORE_MAX ? marks->tight_bytes : STORE_MAX;
	room->can_hold = true;
	room->fd = open_reserve(meta_fd, err);
	if (room->fd < 0) {
		int r = room->fd;

		free(room);
		return r;
	}
	(void)pthread_mutex_init(&room->lock, NULL);
	if (is_whole(room))
		room->held = bytes;
	else
		(void)empty_reserve(room);
	look(room);
	*ret_room = room;
	return 0;
}

void cmek_room_free(struct cmek_room *room)
{
	if (room == NULL)
		return;
	(void)close(room->fd); /* nothing was written that could be lost */
	(void)pthread_mutex_destroy(&room->lock);
	free(room);
}

const char *cmek_room_level_name(enum cmek_room_level level)
{
	static const char *const names[] = {
		[CMEK_ROOM_PLENTY] = "plenty", [CMEK_ROOM_NEAR] = "near", [CMEK_ROOM_TIGHT] = "tight", [CMEK_ROOM_FULL] = "full",
		[CMEK_ROOM_GONE] = "gone"
	};

	return names[level];
}

enum cmek_room_level cmek_room_level(struct cmek_room *room)
{
	uint64_t now, next;

	if (room == NULL)
		return CMEK_ROOM_PLENTY;
	now = cmek_now_ms();
	next = atomic_load(&room->next_ms);
	if (now >= next && atomic_compare_exchange_strong(&room->next_ms, &next, now + known_ms[atomic_load(&room->level)]))
		return cmek_room_level_now(room);
	return (enum cmek_room_level)atomic_load(&room->level);
}

enum cmek_room_level cmek_room_level_now(struct cmek_room *room)
{
	if (room == NULL)
		return CMEK_ROOM_PLENTY;
	(void)pthread_mutex_lock(&room->lock);
	look(room);
	(void)pthread_mutex_unlock(&room->lock);
	return (enum cmek_room_level)atomic_load(&room->level);
}

bool cmek_room_has_promised(struct cmek_room *room)
{
	return room != NULL && atomic_load(&room->promised) > 0;
}

void cmek_room_promise(struct cmek_room *room, int64_t more)
{
	if (room != NULL && more != 0)
		(void)atomic_fetch_add_explicit(&room->promised, more, memory_order_relaxed);
}

bool cmek_room_use_reserve(struct cmek_room *room)
{
	uint64_t now = cmek_now_ms();
	bool used = false;

	if (room == NULL)
		return false;
	(void)pthread_mutex_lock(&room->lock);
	if (room->held > 0 && empty_reserve(room)) {
		used = true;
		room->used_ms = now;
		room->make_ms = now + MAKE_AGAIN_MS;
		if (room->host.reserve != NULL)
			room->host.reserve(room->host.arg, true);
		look(room);
	} else if (room->used_ms > 0) {
		used = now < room->used_ms + JUST_USED_MS;
	}
	(void)pthread_mutex_unlock(&room->lock);
	return used;
}

void cmek_room_status(struct cmek_room *room, struct cmek_room_status *ret_status)
{
	struct cmek_room_status status = { .level = CMEK_ROOM_PLENTY };

	if (room != NULL) {
		status.level = (enum cmek_room_level)atomic_load(&room->level);
		status.kept_bytes = mark_of(room, CMEK_ROOM_FULL);
		status.reserve_bytes = room->can_hold ? room->bytes : 0;
		status.held_bytes = room->held;
	}
	*ret_status = status;
}
