/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The node table: numbers and generations, hints and pins, and threads that find, insert and forget the same inodes. */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/tree/node.h"
#include "tests/unit/unit.h"

#define ROOT UINT64_C(1)

static struct cmek_node_table *table;
static uint64_t n_gone; /* atomic */

static void gone(void *arg, uint64_t number, mode_t type)
{
	(void)arg;
	(void)type;
	ck_assert_uint_ne(number, ROOT);
	__atomic_fetch_add(&n_gone, 1, __ATOMIC_RELAXED);
}

static struct cmek_node_key key_of(uint64_t ino, unsigned generation)
{
	struct cmek_node_key key = { .dev = 1, .ino = ino, .handle = { .type = 1, .len = 12 } };

	memcpy(key.handle.bytes, &ino, 8);
	memcpy(key.handle.bytes + 8, &generation, 4);
	return key;
}

static int enter(uint64_t ino, uint64_t parent, const char *entry, uint64_t *ret_number)
{
	struct cmek_node_key key = key_of(ino, 0);

	return cmek_node_enter(table, &key, S_IFDIR | 0755, parent, entry, true, false, ret_number);
}

static void setup_with(uint64_t max)
{
	uint64_t root;

	n_gone = 0;
	ck_assert_int_eq(cmek_node_table_new(max, gone, NULL, &table, NULL), 0);
	ck_assert_int_eq(enter(1, 0, NULL, &root), 0);
	ck_assert_uint_eq(root, ROOT);
}

static void setup(void)
{
	setup_with(1 << 20);
}

static void teardown(void)
{
	cmek_node_table_free(table);
}

START_TEST(retired)
{
	struct cmek_node_key key = key_of(7, 0);
	struct cmek_node node;
	uint64_t old, new, held;

	ck_assert_int_eq(enter(7, ROOT, "x", &old), 0);
	ck_assert_int_eq(cmek_node_get(table, old, &node), 0); /* a request at work */
	cmek_node_retire(table, old);
	cmek_node_retire(table, old);
	ck_assert_int_eq(cmek_node_get(table, old, &node), -ESTALE);
	ck_assert_int_eq(cmek_node_find(table, &key, &node), -ENOENT);
	ck_assert_int_eq(enter(7, ROOT, "x", &new), 0);
	ck_assert_uint_ne(old, new);
	ck_assert_int_eq(cmek_node_find(table, &key, &node), 0);
	ck_assert_uint_eq(node.number, new);
	cmek_node_put(table, new);
	/* The old one ends without taking the new one along, and its slot is used again. */
	cmek_node_put(table, old);
	ck_assert_uint_eq(n_gone, 0);
	cmek_node_forget(table, old, 1);
	ck_assert_uint_eq(n_gone, 1);
	ck_assert_int_eq(cmek_node_get(table, new, &node), 0);
	cmek_node_put(table, new);
	ck_assert_int_eq(enter(8, ROOT, "y", &held), 0);
	ck_assert_uint_eq((uint32_t)held, (uint32_t)old);
	ck_assert_int_eq(cmek_node_get(table, held, &node), 0);
	ck_assert_uint_eq(node.key.ino, 8);
	cmek_node_put(table, held);
	cmek_node_retire(table, ROOT);
	ck_assert_int_eq(cmek_node_get(table, ROOT, &node), 0);
	cmek_node_put(table, ROOT);
}
END_TEST

/* All that the kernel knows, retired ones too, each once; not those that only we have a reference on. */
START_TEST(one_after_the_other)
{
	uint64_t numbers[100], index = 0, number, found = 0;
	struct cmek_node node;
	unsigned i;

	for (i = 0; i < 100; i++)
		ck_assert_int_eq(enter(i + 10, ROOT, "x", numbers + i), 0);
	ck_assert_int_eq(cmek_node_get(table, numbers[3], &node), 0);
	for (i = 0; i < 100; i += 3)
		cmek_node_forget(table, numbers[i], 1);
	cmek_node_retire(table, numbers[4]);
	ck_assert_uint_eq(cmek_node_next(table, &index), ROOT);
	while ((number = cmek_node_next(table, &index)) != 0) {
		for (i = 0; i < 100 && numbers[i] != number; i++)
			;
		ck_assert(i < 100 && i % 3 != 0);
		found++;
	}
	ck_assert_uint_eq(found, 66);
	ck_assert_uint_eq(cmek_node_next(table, &index), 0);
	cmek_node_put(table, numbers[3]);
}
END_TEST

START_TEST(counts)
{
	struct cmek_node_key key = key_of(7, 0);
	struct cmek_node node;
	uint64_t a, b;

	ck_assert_int_eq(cmek_node_find(table, &key, &node), -ENOENT);
	ck_assert_int_eq(enter(7, ROOT, "x", &a), 0);
	ck_assert_int_eq(enter(7, ROOT, "x", &b), 0);
	ck_assert_uint_eq(a, b);
	ck_assert_int_eq(cmek_node_get(table, a, &node), 0);
	ck_assert_uint_eq(node.number, a);
	ck_assert_uint_eq(node.key.ino, 7);
	ck_assert_uint_eq(node.type, S_IFDIR);
	ck_assert_int_eq(node.pin_fd, -1);
	ck_assert(cmek_handle_equal(&node.key.handle, &key.handle));
	/* Forgotten, but not while somebody is at work on it. */
	cmek_node_forget(table, a, 2);
	ck_assert_int_eq(cmek_node_find(table, &key, &node), 0);
	cmek_node_put(table, a);
	ck_assert_uint_eq(n_gone, 0);
	cmek_node_put(table, a);
	ck_assert_uint_eq(n_gone, 1);
	ck_assert_int_eq(cmek_node_get(table, a, &node), -ESTALE);
	ck_assert_int_eq(cmek_node_find(table, &key, &node), -ENOENT);
	/* The slot again, the number not. */
	ck_assert_int_eq(enter(8, ROOT, "y", &b), 0);
	ck_assert_uint_eq((uint32_t)a, (uint32_t)b);
	ck_assert_uint_eq((a >> 32) + 1, b >> 32);
	cmek_node_forget(table, a, 1);
	ck_assert_int_eq(cmek_node_get(table, b, &node), 0);
	cmek_node_put(table, b);
}
END_TEST

START_TEST(hostile_numbers)
{
	static const uint64_t numbers[] = { 0, 2, 1000000, UINT32_MAX, ROOT | UINT64_C(1) << 32, UINT64_MAX };
	struct cmek_node node;
	char entry[256];
	uint64_t parent, a;
	unsigned i;

	for (i = 0; i < UNIT_ROWS(numbers); i++) {
		int pin = open("/dev/null", O_PATH | O_CLOEXEC);

		ck_assert_int_eq(cmek_node_get(table, numbers[i], &node), -ESTALE);
		ck_assert_int_eq(cmek_node_hint(table, numbers[i], &parent, entry), -ESTALE);
		ck_assert_int_eq(cmek_node_set_hint(table, numbers[i], ROOT, "x"), -ESTALE);
		ck_assert_int_eq(enter(7, numbers[i], "x", &a), numbers[i] ? -ESTALE : 0);
		if (numbers[i] == 0)
			cmek_node_forget(table, a, 1);
		cmek_node_forget(table, numbers[i], 1);
		cmek_node_pin(table, numbers[i], &pin);
		ck_assert_int_eq(pin, -1);
	}
	/* Too many lookups given back, and the root, which stays. */
	ck_assert_int_eq(enter(7, ROOT, "x", &a), 0);
	cmek_node_forget(table, a, UINT64_MAX);
	cmek_node_forget(table, ROOT, UINT64_MAX);
	ck_assert_int_eq(cmek_node_get(table, ROOT, &node), 0);
	cmek_node_put(table, ROOT);
}
END_TEST

/* The same inode number with another handle is another inode; without handles it is the same. */
START_TEST(handles_tell_apart)
{
	struct cmek_node_key a = key_of(7, 1), b = key_of(7, 2), c = { .dev = 1, .ino = 7 };
	uint64_t na, nb, nc, again;

	ck_assert_int_eq(cmek_node_enter(table, &a, S_IFREG, ROOT, "a", true, false, &na), 0);
	ck_assert_int_eq(cmek_node_enter(table, &b, S_IFREG, ROOT, "b", true, false, &nb), 0);
	ck_assert_int_eq(cmek_node_enter(table, &c, S_IFREG, ROOT, "c", true, true, &nc), 0);
	ck_assert(!cmek_node_has_data(table, na) && !cmek_node_has_data(table, nb) && cmek_node_has_data(table, nc));
	cmek_node_set_data(table, na, true);
	ck_assert(cmek_node_has_data(table, na));
	cmek_node_set_data(table, na, false);
	ck_assert(!cmek_node_has_data(table, na));
	ck_assert_uint_ne(na, nb);
	ck_assert_uint_ne(na, nc);
	ck_assert_uint_ne(nb, nc);
	ck_assert_int_eq(cmek_node_enter(table, &c, S_IFREG, ROOT, "c", true, false, &again), 0);
	ck_assert_uint_eq(nc, again);
	ck_assert(cmek_node_has_data(table, nc)); /* what was found first */
}
END_TEST

static void check_hint(uint64_t number, uint64_t want_parent, const char *want)
{
	char entry[256];
	uint64_t parent;

	ck_assert_int_eq(cmek_node_hint(table, number, &parent, entry), 0);
	ck_assert_uint_eq(parent, want_parent);
	ck_assert_str_eq(entry, want);
}

START_TEST(hints)
{
	struct cmek_node_key key = key_of(9, 0);
	char entry[256];
	uint64_t dir, other, a, parent;

	ck_assert_int_eq(enter(7, ROOT, "dir", &dir), 0);
	ck_assert_int_eq(enter(8, ROOT, "other", &other), 0);
	ck_assert_int_eq(enter(9, dir, "a", &a), 0);
	check_hint(a, dir, "a");
	/* Seen elsewhere: moves, or (a hard link) stays. */
	ck_assert_int_eq(cmek_node_enter(table, &key, S_IFREG, other, "b", false, false, &a), 0);
	check_hint(a, dir, "a");
	ck_assert_int_eq(cmek_node_enter(table, &key, S_IFREG, other, "b", true, false, &a), 0);
	check_hint(a, other, "b");
	cmek_node_forget(table, dir, 1);
	ck_assert_uint_eq(n_gone, 1);
	/* The directory of a hint stays known, whatever the kernel forgets; then both go. */
	cmek_node_forget(table, other, 1);
	ck_assert_uint_eq(n_gone, 1);
	cmek_node_forget(table, a, 3);
	ck_assert_uint_eq(n_gone, 3);

	ck_assert_int_eq(enter(9, ROOT, "a", &a), 0);
	ck_assert_int_eq(cmek_node_set_hint(table, a, 0, NULL), 0);
	ck_assert_int_eq(cmek_node_hint(table, a, &parent, entry), -ENOENT);
	ck_assert_int_eq(enter(9, ROOT, "c", &a), 0);
	check_hint(a, ROOT, "c");
}
END_TEST

/* A deep chain goes at once when its end is forgotten. */
START_TEST(deep)
{
	uint64_t at = ROOT, next;
	unsigned i;

	for (i = 0; i < 200000; i++) {
		ck_assert_int_eq(enter(100 + i, at, "d", &next), 0);
		if (at != ROOT)
			cmek_node_forget(table, at, 1);
		at = next;
	}
	ck_assert_uint_eq(n_gone, 0);
	cmek_node_forget(table, at, 1);
	ck_assert_uint_eq(n_gone, 200000);
}
END_TEST

START_TEST(pins)
{
	int fd = open("/dev/null", O_PATH | O_CLOEXEC), was = fd, second = open("/dev/null", O_PATH | O_CLOEXEC);
	struct cmek_node node;
	uint64_t a;

	ck_assert_int_eq(enter(7, ROOT, "x", &a), 0);
	cmek_node_pin(table, a, &fd);
	ck_assert_int_eq(fd, -1);
	cmek_node_pin(table, a, &second);
	ck_assert_int_eq(second, -1);
	ck_assert_int_eq(cmek_node_get(table, a, &node), 0);
	ck_assert_int_eq(node.pin_fd, was);
	ck_assert_int_ge(fcntl(was, F_GETFD), 0);
	cmek_node_forget(table, a, 1);
	cmek_node_put(table, a);
	ck_assert_int_eq(fcntl(was, F_GETFD), -1);
}
END_TEST

START_TEST(full)
{
	uint64_t a, b, c, i;

	teardown();
	setup_with(3);
	ck_assert_int_eq(enter(7, ROOT, "a", &a), 0);
	ck_assert_int_eq(enter(8, ROOT, "b", &b), 0);
	ck_assert_int_eq(enter(9, ROOT, "c", &c), -ENFILE);
	ck_assert_int_eq(enter(7, ROOT, "a", &a), 0);
	cmek_node_forget(table, b, 1);
	ck_assert_int_eq(enter(9, ROOT, "c", &c), 0);
	teardown();
	/* Growth, rehashing, and all of them found again. */
	setup_with(100000);
	for (i = 0; i < 50000; i++)
		ck_assert_int_eq(enter(100 + i, ROOT, "n", &a), 0);
	ck_assert_uint_eq(cmek_node_table_high(table), 50001);
	for (i = 0; i < 50000; i++) {
		ck_assert_int_eq(enter(100 + i, ROOT, "n", &a), 0);
		ck_assert_uint_le((uint32_t)a, 50001);
		cmek_node_forget(table, a, 2);
	}
	ck_assert_uint_eq(n_gone, 50000);
}
END_TEST

START_TEST(marks)
{
	uint64_t a, b, index = 0;
	uint32_t mark;

	ck_assert_int_eq(enter(7, ROOT, "a", &a), 0);
	ck_assert_int_eq(enter(8, ROOT, "b", &b), 0);
	cmek_node_mark(table, a, 5);
	cmek_node_mark(table, a, 6);
	ck_assert_uint_eq(cmek_node_n_marked(table), 1);
	cmek_node_forget(table, a, 1);
	cmek_node_forget(table, b, 1);
	ck_assert_uint_eq(n_gone, 1);
	ck_assert_uint_eq(cmek_node_next_marked(table, &index, &mark), a);
	ck_assert_uint_eq(mark, 6);
	ck_assert_uint_eq(cmek_node_next_marked(table, &index, &mark), 0);
	cmek_node_clear_mark(table, a, 5);
	ck_assert_uint_eq(cmek_node_mark_of(table, a), 6);
	cmek_node_clear_mark(table, a, 6);
	ck_assert_uint_eq(cmek_node_n_marked(table), 0);
	ck_assert_uint_eq(n_gone, 2);
}
END_TEST

#define THREADS 4
#define STEPS 30000
#define INODES 97

static uint64_t next_random(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 33;
}

/* Enters, looks at and forgets inodes of a small set, so that threads meet in them all the time. */
static void *stress(void *arg)
{
	uint64_t seed = (uintptr_t)arg, held[INODES] = { 0 }, counts[INODES] = { 0 };
	char entry[256];
	unsigned i;

	for (i = 0; i < STEPS; i++) {
		uint64_t ino = next_random(&seed) % INODES, number, parent;
		struct cmek_node_key key = key_of(100 + ino, 0);
		struct cmek_node node;

		switch (next_random(&seed) % 6) {
		case 0:
		case 1:
			snprintf(entry, sizeof entry, "%u", (unsigned)(next_random(&seed) % 3));
			parent = ino && held[ino - 1] ? held[ino - 1] : ROOT;
			if (cmek_node_enter(table, &key, S_IFDIR, parent, entry, i % 2, false, &number))
				return arg;
			/* While a lookup is held, the number can't change. */
			if (held[ino] && held[ino] != number)
				return arg;
			held[ino] = number;
			counts[ino]++;
			break;
		case 2:
			if (!held[ino])
				break;
			if (cmek_node_get(table, held[ino], &node) || node.key.ino != 100 + ino)
				return arg;
			cmek_node_put(table, held[ino]);
			break;
		case 3:
			if (cmek_node_find(table, &key, &node) == 0) {
				if (node.key.ino != 100 + ino || (held[ino] && held[ino] != node.number))
					return arg;
				(void)cmek_node_hint(table, node.number, &parent, entry);
				cmek_node_put(table, node.number);
			} else if (held[ino]) {
				return arg;
			}
			break;
		default:
			if (held[ino])
				cmek_node_forget(table, held[ino], counts[ino]);
			held[ino] = counts[ino] = 0;
		}
	}
	for (i = 0; i < INODES; i++) {
		if (held[i])
			cmek_node_forget(table, held[i], counts[i]);
	}
	return NULL;
}

START_TEST(threads)
{
	pthread_t ids[THREADS];
	struct cmek_node node;
	void *failed;
	uintptr_t i;

	for (i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&ids[i], NULL, stress, (void *)(i + 1)), 0);
	for (i = 0; i < THREADS; i++) {
		ck_assert_int_eq(pthread_join(ids[i], &failed), 0);
		ck_assert_ptr_null(failed);
	}
	for (i = 0; i < INODES; i++) {
		struct cmek_node_key key = key_of(100 + i, 0);

		ck_assert_int_eq(cmek_node_find(table, &key, &node), -ENOENT);
	}
	/* Slots were used again, and never by two. */
	ck_assert_uint_le(cmek_node_table_high(table), INODES + THREADS + 1);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("node");
	TCase *tcase = tcase_create("node");

	tcase_set_timeout(tcase, 120);
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, counts);
	tcase_add_test(tcase, one_after_the_other);
	tcase_add_test(tcase, retired);
	tcase_add_test(tcase, hostile_numbers);
	tcase_add_test(tcase, handles_tell_apart);
	tcase_add_test(tcase, hints);
	tcase_add_test(tcase, deep);
	tcase_add_test(tcase, pins);
	tcase_add_test(tcase, full);
	tcase_add_test(tcase, marks);
	tcase_add_test(tcase, threads);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
