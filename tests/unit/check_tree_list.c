/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Listings: big ones, in change, and of directories with things that are not ours. */
#include "config.h"

#include <dirent.h>

#include "tests/unit/tree_fixture.h"

#define ROOT CMEK_NODE_ROOT

#define MANY 20000 /* on tmpfs; a disk has enough to do with a fifth */

/* A listing in pieces: no entry twice, none missing, while others come and go. */
START_TEST(big_listing)
{
	struct names names = { .max = 150 };
	static unsigned char seen[MANY];
	struct cmek_entry entry;
	char name[32];
	unsigned i, bad, calls = 0, many;
	uint64_t dir;
	int fd;

	tree_begin(_i);
	many = variant->shm ? MANY : MANY / 5;
	memset(seen, 0, sizeof seen);
	dir = mk(ROOT, "dir");
	for (i = 0; i < many; i++) {
		snprintf(name, sizeof name, "entry %u", i);
		ck_assert_int_eq(cmek_tree_create(tree, dir, name, 0600, true, &self, &entry, &fd), 0);
		close(fd);
		cmek_tree_forget(tree, entry.node, 1);
	}
	do {
		names.this_call = 0;
		names.plus = calls++ % 2;
		ck_assert_int_eq(cmek_tree_readdir(tree, dir, names.off, names.plus, names_emit, &names, &bad), 0);
		ck_assert_uint_eq(bad, 0);
		/* Some that were listed go, at once; others come. */
		for (i = names.n; names.this_call && i > 0 && i + 50 > names.n; i--) {
			if (names.v[i - 1][0] == 'e' && i % 3 == 0)
				ck_assert_int_eq(cmek_tree_unlink(tree, dir, names.v[i - 1]), 0);
		}
		if (calls == 5)
			cmek_tree_forget(tree, touch(dir, "came in between"), 1);
	} while (names.this_call);
	for (i = 0; i < names.n; i++) {
		unsigned k;

		if (sscanf(names.v[i], "entry %u", &k) == 1) {
			ck_assert_msg(!seen[k], "%s twice", names.v[i]);
			seen[k] = 1;
		}
	}
	for (i = 0; i < many; i++)
		ck_assert_msg(seen[i], "entry %u is missing", i);
	names_free(&names);
	tree_end();
}
END_TEST

/* After a change a listing shows it, whatever was read ahead before. */
START_TEST(fresh_listing)
{
	uint64_t dir;
	struct names got;
	char name[16];
	int i;

	tree_begin(_i);
	dir = mk(ROOT, "dir");
	for (i = 0; i < 60; i++) {
		snprintf(name, sizeof name, "%d", i);
		touch(dir, name);
		got = list(dir, i % 2, 7);
		ck_assert_uint_eq(got.n, i + 1);
		names_free(&got);
	}
	for (i = 0; i < 60; i++) {
		snprintf(name, sizeof name, "%d", i);
		ck_assert_int_eq(cmek_tree_unlink(tree, dir, name), 0);
		got = list(dir, i % 2, 7);
		ck_assert_uint_eq(got.n, 59 - i);
		names_free(&got);
	}
	tree_end();
}
END_TEST

struct tally {
	unsigned n, max, n_files, n_dirs; /* n: of this call */
	uint64_t off;
};

static int tally_emit(void *arg, const char *name, const struct cmek_entry *entry, uint64_t next_off)
{
	struct tally *t = arg;

	if (t->n == t->max)
		return 1;
	t->n++;
	t->off = next_off;
	if (entry->node)
		cmek_tree_forget(tree, entry->node, 1);
	if (name[0] == 'e' && S_ISDIR(entry->st.st_mode))
		t->n_dirs++;
	else if (name[0] == 'e')
		t->n_files++;
	return 0;
}

/* What was read ahead and has gone is not listed any more; what came by its name is listed as what it is. */
START_TEST(changed_listing)
{
	unsigned i, plus, other, bad, n_files;
	struct names got;
	char name[16];
	uint64_t dir;

	tree_begin(_i);
	for (plus = 0; plus < 2; plus++) {
		for (other = 0; other < 2; other++) {
			struct tally tally = { .max = 20 };

			snprintf(name, sizeof name, "dir %u %u", plus, other);
			dir = mk(ROOT, name);
			for (i = 0; i < 60; i++) {
				snprintf(name, sizeof name, "e%u", i);
				cmek_tree_forget(tree, touch(dir, name), 1);
			}
			ck_assert_int_eq(cmek_tree_readdir(tree, dir, 0, plus, tally_emit, &tally, &bad), 0);
			n_files = tally.n_files;
			ck_assert_uint_ge(n_files, 18);
			for (i = 0; i < 60; i++) {
				snprintf(name, sizeof name, "e%u", i);
				ck_assert_int_eq(cmek_tree_unlink(tree, dir, name), 0);
				if (i % 2)
					cmek_tree_forget(tree, mk(dir, name), 1);
			}
			if (other) {
				got = list(dir, !plus, 7);
				ck_assert_uint_eq(got.n, 30);
				names_free(&got);
			}
			do {
				tally.n = 0;
				ck_assert_int_eq(cmek_tree_readdir(tree, dir, tally.off, plus, tally_emit, &tally, &bad), 0);
				ck_assert_uint_eq(bad, 0);
			} while (tally.n);
			ck_assert_uint_eq(tally.n_files, n_files);
			ck_assert_uint_le(tally.n_dirs, 30);
		}
	}
	tree_end();
}
END_TEST

/* Things in the store that are not ours, or were. */
START_TEST(bad_entries)
{
	struct names names = { .plus = true };
	char path[4200], *stored = NULL;
	struct cmek_entry entry;
	unsigned bad;
	DIR *d;

	tree_begin(_i);
	touch(ROOT, "good");
	touch(ROOT, name_of('l', 255));
	snprintf(path, sizeof path, "%s/lost+found", store);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	snprintf(path, sizeof path, "%s/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", store);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	ck_assert_int_eq(cmek_tree_readdir(tree, ROOT, 0, true, names_emit, &names, &bad), 0);
	ck_assert_uint_eq(bad, 1);
	ck_assert_uint_eq(names.n, 4);
	names_free(&names);
	ck_assert_int_eq(rmdir(path), 0);
	/* A long name whose link is gone, wrong, or no symlink: neither listed nor found. */
	d = opendir(store);
	for (struct dirent *e; (e = readdir(d));) {
		if (cmek_name_kind(e->d_name) == CMEK_STORE_NAME_LINK)
			stored = strdup(e->d_name);
	}
	closedir(d);
	ck_assert_ptr_nonnull(stored);
	snprintf(path, sizeof path, "%s/%s", store, stored);
	for (unsigned i = 0; i < 3; i++) {
		ck_assert_int_eq(unlink(path), 0);
		if (i == 1)
			ck_assert_int_eq(symlink("wrong", path), 0);
		if (i == 2)
			ck_assert_int_eq(close(open(path, O_CREAT | O_WRONLY, 0600)), 0);
		names.plus = true;
		ck_assert_int_eq(cmek_tree_readdir(tree, ROOT, 0, true, names_emit, &names, &bad), 0);
		ck_assert_uint_eq(bad, 1);
		ck_assert_uint_eq(names.n, 3);
		names_free(&names);
		ck_assert_int_eq(probe(ROOT, name_of('l', 255)), -EBADMSG);
		if (i == 0)
			ck_assert_int_eq(symlink("x", path), 0);
	}
	/* The next attempt to make that name heals the link. */
	ck_assert_int_eq(cmek_tree_mkdir(tree, ROOT, name_of('l', 255), 0700, &self, &entry), -EEXIST);
	assert_names(ROOT, "good", name_of('l', 255), NULL);
	free(stored);
	tree_end();
}
END_TEST

static Suite *make_suite(void)
{
	Suite *suite = suite_create("tree_list");
	TCase *tcase = tcase_create("tree_list");

	tcase_set_timeout(tcase, 300);
	tcase_add_loop_test(tcase, big_listing, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, fresh_listing, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, changed_listing, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, bad_entries, 0, TREE_VARIANTS);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	return tree_run(make_suite);
}
