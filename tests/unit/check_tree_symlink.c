/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Targets of symlinks in the store: whole, in pieces, damaged. */
#include "config.h"

#include <dirent.h>

#include "tests/unit/tree_fixture.h"

#define ROOT CMEK_NODE_ROOT

static void check_target(uint64_t node, const char *want)
{
	char target[4096];
	struct stat st;
	int n = cmek_tree_readlink(tree, node, target, sizeof target);

	ck_assert_msg(n >= 0, "%s", strerror(-n));
	ck_assert_uint_eq((size_t)n, strlen(want));
	ck_assert_int_eq(memcmp(target, want, (size_t)n), 0);
	ck_assert_int_eq(cmek_tree_getattr(tree, node, &st), 0);
	ck_assert_uint_eq((size_t)st.st_size, strlen(want));
}

/* Of 1 to 4095 bytes, in one symlink of the store or in several. */
START_TEST(symlinks)
{
	static const size_t lengths[] = { 1, 2, 100, 729, 730, 731, 3033, 3034, 3035, 3039, 3040, 4094, 4095 };
	char target[4097], path[4200];
	struct cmek_entry entry;
	uint64_t dir, node;
	unsigned i;

	tree_symlink_max = _i < TREE_VARIANTS ? 4095 : 1023;
	tree_begin(_i % TREE_VARIANTS);
	memset(target, 'x', 4095);
	target[4095] = 0;
	/* What XFS and ext4 with small blocks take is tested everywhere, what the others do where it can be. */
	snprintf(path, sizeof path, "%s/probe", store);
	if (tree_symlink_max == 4095 && symlink(target, path)) {
		ck_assert_int_eq(errno, ENAMETOOLONG);
		tree_end();
		return;
	}
	(void)unlink(path);
	dir = mk(ROOT, "dir");
	for (i = 0; i < UNIT_ROWS(lengths); i++) {
		memset(target, 'a' + (int)i, lengths[i]);
		target[lengths[i]] = 0;
		ck_assert_int_eq(cmek_tree_symlink(tree, dir, name_of('s', i + 1), target, &self, &entry), 0);
		ck_assert_uint_eq(entry.st.st_mode & S_IFMT, S_IFLNK);
		ck_assert_uint_eq((size_t)entry.st.st_size, lengths[i]);
		check_target(entry.node, target);
	}
	tree_again();
	dir = find(ROOT, "dir");
	for (i = 0; i < UNIT_ROWS(lengths); i++) {
		memset(target, 'a' + (int)i, lengths[i]);
		target[lengths[i]] = 0;
		ck_assert_int_eq(cmek_tree_lookup(tree, dir, name_of('s', i + 1), &entry), 0);
		ck_assert_uint_eq((size_t)entry.st.st_size, lengths[i]);
		check_target(entry.node, target);
	}
	ck_assert_int_eq(cmek_tree_readlink(tree, entry.node, target, 10), 10);
	ck_assert_int_eq(cmek_tree_readlink(tree, dir, target, 10), -EINVAL);
	ck_assert_int_eq(cmek_tree_chmod(tree, entry.node, 0600), -EOPNOTSUPP);
	memset(target, 'x', 4096);
	target[4096] = 0;
	ck_assert_int_eq(cmek_tree_symlink(tree, dir, "no", target, &self, &entry), -ENAMETOOLONG);
	ck_assert_int_eq(cmek_tree_symlink(tree, dir, "no", "", &self, &entry), -ENOENT);
	ck_assert_int_eq(cmek_tree_symlink(tree, dir, "s", "x", &self, &entry), -EEXIST);
	/* The pieces go with the last name, also when that is replaced. */
	target[4095] = 0;
	node = find(dir, name_of('s', UNIT_ROWS(lengths)));
	ck_assert_int_eq(cmek_tree_link(tree, node, dir, "hard", &entry), 0);
	ck_assert_int_eq(cmek_tree_unlink(tree, dir, name_of('s', UNIT_ROWS(lengths))), 0);
	memset(target, 'a' + (int)UNIT_ROWS(lengths) - 1, 4095);
	check_target(node, target);
	touch(dir, "file");
	ck_assert_int_eq(cmek_tree_rename(tree, dir, "file", dir, "hard", 0), 0);
	for (i = 0; i < UNIT_ROWS(lengths) - 1; i++)
		ck_assert_int_eq(cmek_tree_unlink(tree, dir, name_of('s', i + 1)), 0);
	snprintf(path, sizeof path, "%s/.cmekfs/links", store);
	ck_assert_int_eq(rmdir(path), 0);
	tree_end();
}
END_TEST

START_TEST(bad_symlinks)
{
	char target[4096], path[4200], link[4096], *name;
	struct cmek_entry entry;
	ssize_t n, at;
	int fd;

	tree_symlink_max = 1023;
	tree_begin(_i);
	memset(target, 'x', 2000);
	target[2000] = 0;
	ck_assert_int_eq(cmek_tree_symlink(tree, ROOT, "s", target, &self, &entry), 0);
	snprintf(path, sizeof path, "%s/.cmekfs/links", store);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	n = cmek_store_getdents(fd, target, sizeof target);
	ck_assert_int_gt(n, 0);
	name = NULL;
	for (at = 0; at < n;) {
		const struct dirent64 *d = (const void *)(target + at);

		if (strcmp(d->d_name + strlen(d->d_name) - 2, ".2") == 0)
			name = strdup(d->d_name);
		at += d->d_reclen;
	}
	ck_assert_ptr_nonnull(name);
	n = readlinkat(fd, name, link, sizeof link - 1);
	link[n] = 0;
	link[0] ^= 1;
	ck_assert_int_eq(unlinkat(fd, name, 0), 0);
	ck_assert_int_eq(cmek_tree_readlink(tree, entry.node, target, sizeof target), -ENOLINK);
	ck_assert_int_eq(symlinkat(link, fd, name), 0);
	ck_assert_int_eq(cmek_tree_readlink(tree, entry.node, target, sizeof target), -EBADMSG);
	link[n - 1] = 0;
	ck_assert_int_eq(unlinkat(fd, name, 0), 0);
	ck_assert_int_eq(symlinkat(link, fd, name), 0);
	ck_assert_int_eq(cmek_tree_readlink(tree, entry.node, target, sizeof target), -EBADMSG);
	ck_assert_int_eq(cmek_tree_unlink(tree, ROOT, "s"), 0);
	ck_assert_int_eq(unlinkat(fd, name, 0), -1);
	close(fd);
	free(name);
	tree_end();
}
END_TEST

static Suite *make_suite(void)
{
	Suite *suite = suite_create("tree_symlink");
	TCase *tcase = tcase_create("tree_symlink");

	tcase_set_timeout(tcase, 300);
	tcase_add_loop_test(tcase, symlinks, 0, 2 * TREE_VARIANTS);
	tcase_add_loop_test(tcase, bad_symlinks, 0, TREE_VARIANTS);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	return tree_run(make_suite);
}
