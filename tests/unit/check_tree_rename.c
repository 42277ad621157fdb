/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Renames over real directories, and what they leave in the store. */
#include "config.h"

#include <stdio.h>

#include "tests/unit/tree_fixture.h"

#define ROOT CMEK_NODE_ROOT

/* Renames: from short and long names to short and long ones, to nothing, over a file, over an empty directory. */
static const struct {
	size_t from, to;
} rename_lengths[] = { { 1, 1 }, { 1, 255 }, { 255, 1 }, { 200, 255 }, { 176, 176 } };

static void rename_case(size_t from_len, size_t to_len, bool same_dir, bool is_dir, bool over)
{
	const char *from = name_of('f', from_len), *to = name_of('t', to_len);
	uint64_t a = mk(ROOT, "a"), b = same_dir ? a : mk(ROOT, "b"), node, victim = 0, ino, inner = 0;

	node = is_dir ? mk(a, from) : touch(a, from);
	if (is_dir)
		inner = touch(node, "inner");
	if (over) {
		victim = is_dir ? mk(b, to) : touch(b, to);
		if (is_dir) {
			touch(victim, "x");
			ck_assert_int_eq(cmek_tree_rename(tree, a, from, b, to, 0), -ENOTEMPTY);
			ck_assert_int_eq(probe(victim, "x"), 0);
			ck_assert_int_eq(cmek_tree_unlink(tree, victim, "x"), 0);
		}
		ck_assert_int_eq(cmek_tree_rename(tree, a, from, b, to, RENAME_NOREPLACE), -EEXIST);
	}
	ino = ino_of(node);
	ck_assert_int_eq(cmek_tree_rename(tree, a, from, b, to, over ? 0 : RENAME_NOREPLACE), 0);
	ck_assert_int_eq(probe(a, from), -ENOENT);
	ck_assert_uint_eq(find(b, to), node);
	ck_assert_uint_eq(ino_of(node), ino);
	if (victim)
		ck_assert_uint_ne(ino_of(victim), ino);
	if (is_dir)
		ck_assert_uint_eq(find(node, "inner"), inner);
	assert_names(b, to, NULL);
	if (!same_dir)
		assert_names(a, NULL);
	ck_assert_int_eq(cmek_tree_rename(tree, a, "nothing", b, to, 0), -ENOENT);
	tree_again();
	a = find(ROOT, "a");
	b = same_dir ? a : find(ROOT, "b");
	assert_names(b, to, NULL);
	if (is_dir) {
		assert_names(find(b, to), "inner", NULL);
		ck_assert_int_eq(cmek_tree_unlink(tree, find(b, to), "inner"), 0);
		ck_assert_int_eq(cmek_tree_rmdir(tree, b, to), 0);
	} else {
		ck_assert_int_eq(cmek_tree_unlink(tree, b, to), 0);
	}
	ck_assert_int_eq(cmek_tree_rmdir(tree, ROOT, "a"), 0);
	if (!same_dir)
		ck_assert_int_eq(cmek_tree_rmdir(tree, ROOT, "b"), 0);
}

START_TEST(rename_matrix)
{
	unsigned i, k;

	tree_begin(_i);
	for (i = 0; i < UNIT_ROWS(rename_lengths); i++) {
		for (k = 0; k < 8; k++)
			rename_case(rename_lengths[i].from, rename_lengths[i].to, k & 1, k & 2, k & 4);
	}
	tree_end();
}
END_TEST

START_TEST(rename_others)
{
	uint64_t a, b, x, y, dir;
	struct cmek_entry entry;

	tree_begin(_i);
	a = mk(ROOT, "a");
	b = mk(ROOT, "b");
	x = touch(a, name_of('x', 220));
	y = mk(b, "y");
	touch(y, "inner");
	/* Exchanged, a file and a directory, a long and a short name. */
	ck_assert_int_eq(cmek_tree_rename(tree, a, name_of('x', 220), b, "y", RENAME_EXCHANGE), 0);
	ck_assert_uint_eq(find(b, "y"), x);
	ck_assert_uint_eq(find(a, name_of('x', 220)), y);
	ck_assert_int_eq(probe(y, "inner"), 0);
	ck_assert_uint_ne(ino_of(x), ino_of(y));
	assert_names(a, name_of('x', 220), NULL);
	assert_names(b, "y", NULL);
	ck_assert_int_eq(cmek_tree_rename(tree, a, name_of('x', 220), b, "none", RENAME_EXCHANGE), -ENOENT);
	ck_assert_int_eq(cmek_tree_rename(tree, a, "none", b, "y", RENAME_EXCHANGE), -ENOENT);
	ck_assert_int_eq(cmek_tree_rename(tree, a, "none", b, "y", 4), -EINVAL);
	ck_assert_int_eq(cmek_tree_rename(tree, a, "none", b, "y", RENAME_EXCHANGE | RENAME_NOREPLACE), -EINVAL);
	/* Types that don't fit. */
	ck_assert_int_eq(cmek_tree_rename(tree, b, "y", ROOT, "a", 0), -EISDIR);
	ck_assert_int_eq(cmek_tree_rename(tree, ROOT, "a", b, "y", 0), -ENOTDIR);
	/* Into itself. */
	ck_assert_int_eq(cmek_tree_rename(tree, ROOT, "a", y, "a", 0), -EINVAL);
	/* To itself, and to another name of the same file: both stay. */
	ck_assert_int_eq(cmek_tree_rename(tree, b, "y", b, "y", 0), 0);
	ck_assert_int_eq(cmek_tree_link(tree, x, b, name_of('z', 255), &entry), 0);
	ck_assert_int_eq(cmek_tree_rename(tree, b, name_of('z', 255), b, "y", 0), 0);
	assert_names(b, "y", name_of('z', 255), NULL);
	ck_assert_int_eq(cmek_tree_unlink(tree, b, "y"), 0);
	ck_assert_uint_eq(find(b, name_of('z', 255)), x);
	/* A failed rename to a long name leaves no link behind. */
	ck_assert_int_eq(cmek_tree_rename(tree, ROOT, "a", y, name_of('q', 255), 0), -EINVAL);
	tree_again();
	dir = find(find(ROOT, "a"), name_of('x', 220));
	assert_names(dir, "inner", NULL);
	/* Directories that changed places resolve by their new ones. */
	a = find(ROOT, "a");
	b = find(ROOT, "b");
	ck_assert_int_eq(cmek_tree_rename(tree, a, name_of('x', 220), ROOT, "top", 0), 0);
	ck_assert_int_eq(cmek_tree_rename(tree, ROOT, "a", dir, "a", 0), 0);
	touch(a, "deep");
	ck_assert_uint_eq(find(find(find(ROOT, "top"), "a"), "deep"), find(a, "deep"));
	tree_end();
}
END_TEST

static Suite *make_suite(void)
{
	Suite *suite = suite_create("tree_rename");
	TCase *tcase = tcase_create("tree_rename");

	tcase_set_timeout(tcase, 300);
	tcase_add_loop_test(tcase, rename_matrix, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, rename_others, 0, TREE_VARIANTS);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	return tree_run(make_suite);
}
