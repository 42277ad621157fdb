/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "config.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fs/content/room.h"
#include "tests/unit/unit.h"

#define MIB (UINT64_C(1) << 20)

/* A directory on a file system of the machine's, of whose room others take, too: nothing here depends on a few bytes. */
static char *dir;
static int dir_fd;
static int n_changes, n_used, n_made;
static enum cmek_room_level told;

static void changed(void *arg, enum cmek_room_level level)
{
	(void)arg;
	n_changes++;
	told = level;
}

static void reserve(void *arg, bool used)
{
	(void)arg;
	n_used += used;
	n_made += !used;
}

static void setup(void)
{
	dir = unit_tmpdir();
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(dir_fd, 0);
	n_changes = n_used = n_made = 0;
	told = CMEK_ROOM_PLENTY;
}

static void teardown(void)
{
	close(dir_fd);
	unit_rmtree(dir);
}

static uint64_t left_bytes(void)
{
	struct statvfs store;

	ck_assert_int_eq(fstatvfs(dir_fd, &store), 0);
	return (uint64_t)store.f_bavail * store.f_frsize;
}

static struct cmek_room *room_of(uint64_t bytes, uint64_t near_bytes, uint64_t tight_bytes)
{
	const struct cmek_room_marks marks = { near_bytes, tight_bytes };
	const struct cmek_room_host host = { NULL, changed, reserve };
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_room *room;

	ck_assert_msg(cmek_room_new(dir_fd, bytes, &marks, &host, &room, &err) == 0, "%s", err.text);
	return room;
}

static struct stat reserve_stat(void)
{
	struct stat st;

	ck_assert_int_eq(fstatat(dir_fd, "reserve", &st, AT_SYMLINK_NOFOLLOW), 0);
	return st;
}

static bool reserve_is_whole(uint64_t bytes)
{
	struct stat st = reserve_stat();

	return S_ISREG(st.st_mode) && (st.st_mode & 07777) == 0600 && (uint64_t)st.st_size == bytes &&
	       (uint64_t)st.st_blocks * 512 >= bytes;
}

START_TEST(the_reserve_is_set_aside_and_stays)
{
	struct cmek_room *room = room_of(MIB, 0, 0);
	ino_t ino;

	ck_assert_int_eq(cmek_room_level(room), CMEK_ROOM_PLENTY);
	ck_assert(reserve_is_whole(MIB));
	ino = reserve_stat().st_ino;
	cmek_room_free(room);
	ck_assert(reserve_is_whole(MIB));
	/* the next mount has it, in the size that it wants */
	room = room_of(MIB, 0, 0);
	ck_assert(reserve_is_whole(MIB));
	ck_assert_uint_eq(reserve_stat().st_ino, ino);
	cmek_room_free(room);
	room = room_of(2 * MIB, 0, 0);
	ck_assert(reserve_is_whole(2 * MIB));
	cmek_room_free(room);
	cmek_room_free(room_of(MIB, 0, 0));
	ck_assert(reserve_is_whole(MIB));
	ck_assert_int_eq(n_used + n_made, 0);
}
END_TEST

START_TEST(without_one_nothing_is_kept)
{
	struct cmek_room_status status;
	struct cmek_room *room;

	cmek_room_free(room_of(MIB, 0, 0));
	room = room_of(0, UINT64_MAX, UINT64_MAX);
	ck_assert_ptr_null(room);
	ck_assert_int_eq(faccessat(dir_fd, "reserve", F_OK, 0), -1);
	ck_assert_int_eq(cmek_room_level(room), CMEK_ROOM_PLENTY);
	ck_assert(!cmek_room_use_reserve(room));
	cmek_room_promise(room, 1);
	cmek_room_status(room, &status);
	ck_assert_uint_eq(status.kept_bytes + status.reserve_bytes + status.held_bytes, 0);
	cmek_room_free(room);
}
END_TEST

START_TEST(by_default_it_is_a_part_of_the_store)
{
	struct cmek_room *room = room_of(CMEK_ROOM_BY_STORE, 0, 0);
	struct cmek_room_status status;
	struct statvfs store;
	uint64_t part;

	ck_assert_int_eq(fstatvfs(dir_fd, &store), 0);
	part = (uint64_t)store.f_blocks * store.f_frsize / CMEK_ROOM_PART;
	part = part < CMEK_ROOM_BYTES_MAX ? part - part % 4096 : CMEK_ROOM_BYTES_MAX;
	cmek_room_status(room, &status);
	ck_assert_uint_eq(status.reserve_bytes, part);
	cmek_room_free(room);
}
END_TEST

START_TEST(levels)
{
	struct cmek_room *room = room_of(MIB, UINT64_MAX, 0);
	struct cmek_room_status status;

	ck_assert_int_eq(cmek_room_level(room), CMEK_ROOM_NEAR);
	cmek_room_free(room);
	room = room_of(MIB, UINT64_MAX, UINT64_MAX);
	ck_assert_int_eq(cmek_room_level(room), CMEK_ROOM_TIGHT);
	ck_assert_int_eq(told, CMEK_ROOM_TIGHT);
	/* what waits in memory has no room yet */
	cmek_room_status(room, &status);
	ck_assert_uint_eq(status.kept_bytes, MIB);
	cmek_room_promise(room, (int64_t)(4 * MIB));
	cmek_room_status(room, &status);
	ck_assert_uint_eq(status.kept_bytes, 5 * MIB);
	ck_assert(cmek_room_has_promised(room));
	cmek_room_promise(room, (int64_t)left_bytes());
	usleep(2000);
	ck_assert_int_eq(cmek_room_level(room), CMEK_ROOM_GONE);
	ck_assert_int_eq(told, CMEK_ROOM_GONE);
	/* and then it has */
	cmek_room_promise(room, -(int64_t)(left_bytes() / 2));
	ck_assert_int_eq(cmek_room_level_now(room), CMEK_ROOM_TIGHT);
	ck_assert_int_eq(n_changes, 4);
	cmek_room_status(room, &status);
	ck_assert_str_eq(cmek_room_level_name(status.level), "tight");
	cmek_room_free(room);
}
END_TEST

/* The marks, of so much that others on the same machine don't move the level. */
START_TEST(between_full_and_gone)
{
	uint64_t bytes = left_bytes() / 8 / 4096 * 4096;
	struct cmek_room_status status;
	struct cmek_room *room;
	int64_t spare;

	if (bytes < 64 * MIB)
		return;
	bytes = 64 * MIB;
	room = room_of(bytes, UINT64_MAX, 0);
	spare = (int64_t)(left_bytes() - bytes);
	ck_assert_int_eq(cmek_room_level_now(room), CMEK_ROOM_NEAR);
	cmek_room_promise(room, spare + (int64_t)bytes / 4);
	ck_assert_int_eq(cmek_room_level_now(room), CMEK_ROOM_FULL);
	cmek_room_promise(room, (int64_t)bytes / 2);
	ck_assert_int_eq(cmek_room_level_now(room), CMEK_ROOM_GONE);
	/* a little more has to be free than a mark says before it is left */
	cmek_room_promise(room, -(int64_t)(bytes / 4 + bytes / 16));
	ck_assert_int_eq(cmek_room_level_now(room), CMEK_ROOM_GONE);
	cmek_room_promise(room, -(int64_t)(bytes / 8));
	ck_assert_int_eq(cmek_room_level_now(room), CMEK_ROOM_FULL);
	cmek_room_status(room, &status);
	ck_assert_uint_eq(status.kept_bytes - bytes - bytes / 8, (uint64_t)spare + bytes / 4 + bytes / 16);
	cmek_room_promise(room, -(int64_t)(bytes / 2));
	ck_assert_int_eq(cmek_room_level_now(room), CMEK_ROOM_NEAR);
	cmek_room_free(room);
}
END_TEST

/* More is wanted than the store has. */
START_TEST(a_store_without_room_for_it)
{
	struct cmek_room *room = room_of(left_bytes() + MIB, 0, 0);
	struct cmek_room_status status;

	ck_assert_int_ge(cmek_room_level(room), CMEK_ROOM_FULL);
	cmek_room_status(room, &status);
	ck_assert_uint_eq(status.held_bytes, 0);
	ck_assert(!cmek_room_use_reserve(room));
	ck_assert_uint_eq(reserve_stat().st_size, 0);
	cmek_room_free(room);
}
END_TEST

START_TEST(it_is_used_and_made_again)
{
	struct cmek_room *room = room_of(MIB, UINT64_MAX, UINT64_MAX);
	struct cmek_room_status status;
	int i;

	ck_assert(cmek_room_use_reserve(room));
	ck_assert_uint_eq(reserve_stat().st_blocks, 0);
	ck_assert_int_eq(n_used, 1);
	/* of somebody else who found no room at the same time */
	ck_assert(cmek_room_use_reserve(room));
	ck_assert_int_eq(n_used, 1);
	cmek_room_status(room, &status);
	ck_assert_uint_eq(status.held_bytes, 0);
	ck_assert_uint_eq(status.reserve_bytes, MIB);
	ck_assert_uint_eq(status.kept_bytes, 2 * MIB);
	/* There is room, but there was none a moment ago. */
	usleep(2000);
	(void)cmek_room_level(room);
	ck_assert_int_eq(n_made, 0);
	for (i = 0; i < 1000 && n_made == 0; i++) {
		usleep(10000);
		(void)cmek_room_level(room);
	}
	ck_assert_int_eq(n_made, 1);
	ck_assert(reserve_is_whole(MIB));
	ck_assert(cmek_room_use_reserve(room));
	cmek_room_free(room);
}
END_TEST

/* Somebody else put it there, to have its blocks let go of. */
START_TEST(what_is_not_ours_is_left_alone)
{
	static const char text[] = "somebody's";
	char found[sizeof(text)];
	struct cmek_room *room;
	int fd = openat(dir_fd, "file", O_RDWR | O_CREAT | O_CLOEXEC, 0600), kind;

	ck_assert_int_eq(write(fd, text, sizeof(text)), sizeof(text));
	for (kind = 0; kind < 3; kind++) {
		(void)unlinkat(dir_fd, "reserve", 0);
		if (kind == 0)
			ck_assert_int_eq(linkat(dir_fd, "file", dir_fd, "reserve", 0), 0);
		else if (kind == 1)
			ck_assert_int_eq(symlinkat("file", dir_fd, "reserve"), 0);
		else
			ck_assert_int_eq(mkfifoat(dir_fd, "reserve", 0600), 0);
		room = room_of(MIB, 0, 0);
		ck_assert(reserve_is_whole(MIB));
		ck_assert(cmek_room_use_reserve(room));
		cmek_room_free(room);
		ck_assert_int_eq(pread(fd, found, sizeof(found), 0), sizeof(text));
		ck_assert_int_eq(memcmp(found, text, sizeof(text)), 0);
	}
	close(fd);
}
END_TEST

START_TEST(what_can_not_be_removed_is_an_error)
{
	const struct cmek_room_marks marks = { 0, 0 };
	const struct cmek_room_host host = { NULL, NULL, NULL };
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_room *room;

	ck_assert_int_eq(mkdirat(dir_fd, "reserve", 0700), 0);
	ck_assert_int_lt(cmek_room_new(dir_fd, MIB, &marks, &host, &room, &err), 0);
	ck_assert_ptr_null(room);
	ck_assert_ptr_nonnull(strstr(err.text, ".cmekfs/reserve"));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("room");
	TCase *tc = tcase_create("room");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, the_reserve_is_set_aside_and_stays);
	tcase_add_test(tc, without_one_nothing_is_kept);
	tcase_add_test(tc, by_default_it_is_a_part_of_the_store);
	tcase_add_test(tc, levels);
	tcase_add_test(tc, between_full_and_gone);
	tcase_add_test(tc, a_store_without_room_for_it);
	tcase_add_test(tc, it_is_used_and_made_again);
	tcase_add_test(tc, what_is_not_ours_is_left_alone);
	tcase_add_test(tc, what_can_not_be_removed_is_an_error);
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
