/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Threads that do everything at once in the same directories. */
#include "config.h"

#include <pthread.h>

#include "tests/unit/tree_fixture.h"

#define ROOT CMEK_NODE_ROOT

#define THREADS 4

static int n_dirs, n_steps; /* a disk has enough to do with fewer */

struct worker {
	int n;
	uint64_t dir;
	int bad; /* -errno, or a line */
};

/* Two and more threads make the first entries of the same new directories. */
static void *make_in_new_dirs(void *arg)
{
	struct worker *w = arg;
	struct cmek_entry dir, entry;
	char name[32];
	int i, r, fd;

	for (i = 0; i < n_dirs; i++) {
		snprintf(name, sizeof name, "dir %d", i);
		r = cmek_tree_mkdir(tree, w->dir, name, 0755, &self, &dir);
		if (r == -EEXIST)
			r = cmek_tree_lookup(tree, w->dir, name, &dir);
		if (r) {
			w->bad = r;
			return w;
		}
		snprintf(name, sizeof name, "file of %d", w->n);
		r = cmek_tree_create(tree, dir.node, name, 0600, true, &self, &entry, &fd);
		if (r) {
			w->bad = r;
			return w;
		}
		close(fd);
		cmek_tree_forget(tree, entry.node, 1);
		cmek_tree_forget(tree, dir.node, 1);
	}
	return NULL;
}

static void run_threads(void *(*fn)(void *), uint64_t dir)
{
	struct worker workers[THREADS];
	pthread_t ids[THREADS];
	void *failed;
	int i;

	for (i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){ .n = i, .dir = dir };
		ck_assert_int_eq(pthread_create(&ids[i], NULL, fn, &workers[i]), 0);
	}
	for (i = 0; i < THREADS; i++) {
		ck_assert_int_eq(pthread_join(ids[i], &failed), 0);
		ck_assert_msg(!failed, "thread %d: %s", i, strerror(abs(workers[i].bad)));
	}
}

START_TEST(threads_in_new_dirs)
{
	uint64_t dir;
	char name[32];
	int i;

	tree_begin(_i);
	n_dirs = variant->shm ? 200 : 40;
	dir = mk(ROOT, "top");
	run_threads(make_in_new_dirs, dir);
	tree_again();
	dir = find(ROOT, "top");
	for (i = 0; i < n_dirs; i++) {
		snprintf(name, sizeof name, "dir %d", i);
		assert_names(find(dir, name), "file of 0", "file of 1", "file of 2", "file of 3", NULL);
	}
	tree_end();
}
END_TEST

static uint64_t next_random(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 33;
}

static int ignore(void *arg, const char *name, const struct cmek_entry *entry, uint64_t next_off)
{
	(void)arg;
	(void)name;
	(void)next_off;
	if (entry->node)
		cmek_tree_forget(tree, entry->node, 1);
	return 0;
}

/* Everything at once on few names, short and long. All errors but the expected ones fail the test. */
static void *scramble(void *arg)
{
	struct worker *w = arg;
	uint64_t seed = (uint64_t)w->n + 1, dirs[2];
	struct cmek_entry entry, other, linked;
	char a[256], b[256];
	unsigned bad;
	int i, fd, r;

	for (i = 0; i < n_steps; i++) {
		unsigned what = next_random(&seed) % 10, na = next_random(&seed) % 4, nb = next_random(&seed) % 4;

		memset(a, 'a' + (int)na, na % 2 ? 220 : 5);
		a[na % 2 ? 220 : 5] = 0;
		memset(b, 'a' + (int)nb, nb % 2 ? 220 : 5);
		b[nb % 2 ? 220 : 5] = 0;
		dirs[0] = dirs[1] = w->dir;
		if (cmek_tree_lookup(tree, w->dir, "sub", &other) == 0)
			dirs[1] = other.node;
		else
			other.node = 0;
		switch (what) {
		case 0:
			r = cmek_tree_create(tree, dirs[na / 2], a, 0600, nb / 2, &self, &entry, &fd);
			if (r == 0) {
				if (fd >= 0)
					close(fd);
				cmek_tree_forget(tree, entry.node, 1);
			}
			break;
		case 1:
			r = cmek_tree_mkdir(tree, dirs[na / 2], a, 0700, &self, &entry);
			if (r == 0)
				cmek_tree_forget(tree, entry.node, 1);
			break;
		case 2:
			r = cmek_tree_unlink(tree, dirs[na / 2], a);
			break;
		case 3:
			r = cmek_tree_rmdir(tree, dirs[na / 2], a);
			break;
		case 4:
		case 5:
			r = cmek_tree_rename(tree, dirs[na / 2], a, dirs[nb / 2], b, what == 4 ? 0 : RENAME_EXCHANGE);
			break;
		case 6:
			r = cmek_tree_readdir(tree, dirs[na / 2], 0, nb % 2, ignore, NULL, &bad);
			if (r == 0 && bad)
				r = -EBADMSG;
			break;
		case 7:
			r = cmek_tree_lookup(tree, dirs[na / 2], a, &entry);
			if (r == 0) {
				struct stat st;

				r = cmek_tree_getattr(tree, entry.node, &st);
				if (r == 0 && S_ISREG(st.st_mode)) {
					fd = cmek_tree_open_store(tree, entry.node, O_RDWR);
					if (fd >= 0)
						close(fd);
					else
						r = fd;
				}
				cmek_tree_forget(tree, entry.node, 1);
			}
			break;
		case 8:
			r = cmek_tree_lookup(tree, dirs[na / 2], a, &entry);
			if (r == 0) {
				r = cmek_tree_link(tree, entry.node, dirs[nb / 2], b, &linked);
				if (r == 0)
					cmek_tree_forget(tree, linked.node, 1);
				cmek_tree_forget(tree, entry.node, 1);
			}
			break;
		default:
			/* In and out of a directory that others use. */
			r = na ? cmek_tree_mkdir(tree, w->dir, "sub", 0700, &self, &entry) :
				 cmek_tree_rmdir(tree, w->dir, "sub");
			if (r == 0 && na)
				cmek_tree_forget(tree, entry.node, 1);
		}
		if (other.node)
			cmek_tree_forget(tree, other.node, 1);
		if (r && r != -ENOENT && r != -EEXIST && r != -EISDIR && r != -ENOTDIR && r != -ENOTEMPTY &&
		    r != -EPERM && r != -EINVAL) {
			w->bad = r;
			return w;
		}
	}
	return NULL;
}

START_TEST(threads_scramble)
{
	uint64_t dir;
	struct names got;
	size_t i;

	tree_begin(_i);
	n_steps = variant->shm ? 3000 : 600;
	dir = mk(ROOT, "top");
	run_threads(scramble, dir);
	/* What is there can be read, by the old tree and by a new one, and no link is without its entry. */
	for (int round = 0; round < 2; round++) {
		got = list(dir, true, 0);
		for (i = 0; i < got.n; i++)
			ck_assert_int_eq(probe(dir, got.v[i]), 0);
		names_free(&got);
		tree_again();
		dir = find(ROOT, "top");
	}
	tree_end();
}
END_TEST

static Suite *make_suite(void)
{
	Suite *suite = suite_create("tree_threads");
	TCase *tcase = tcase_create("tree_threads");

	tcase_set_timeout(tcase, 300);
	tcase_add_loop_test(tcase, threads_in_new_dirs, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, threads_scramble, 0, TREE_VARIANTS);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	return tree_run(make_suite);
}
