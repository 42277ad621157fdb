/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The tree over real directories: every operation, long and odd names, hard links, inodes without names, listings in
 * change, threads. Runs as who runs it, and as nobody, too, when that is root.
 */
#include "config.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tests/unit/tree_fixture.h"

#define ROOT CMEK_NODE_ROOT

START_TEST(lookup_and_attributes)
{
	struct timespec ts[2] = { { 1000000000, 5 }, { 1500000000, 123456789 } };
	struct cmek_entry entry, again;
	struct statvfs vfs;
	struct stat st;
	int fd;

	tree_begin(_i);
	ck_assert_int_eq(cmek_tree_lookup(tree, ROOT, "a", &entry), -ENOENT);
	ck_assert_int_eq(cmek_tree_create(tree, ROOT, "a", 06751, true, &self, &entry, &fd), 0);
	ck_assert_uint_eq(entry.st.st_mode, S_IFREG | 06751);
	ck_assert_int_eq(entry.st.st_size, 0);
	/* Stored sizes become plain ones. */
	ck_assert_int_eq(ftruncate(fd, 4096 + 5), 0);
	close(fd);
	ck_assert_int_eq(cmek_tree_lookup(tree, ROOT, "a", &again), 0);
	ck_assert_uint_eq(again.node, entry.node);
	ck_assert_int_eq(again.st.st_size, 5);
	ck_assert_int_eq(cmek_tree_getattr(tree, entry.node, &st), 0);
	ck_assert_int_eq(st.st_size, 5);
	ck_assert_uint_eq(st.st_ino, again.st.st_ino);

	ck_assert_int_eq(cmek_tree_chmod(tree, entry.node, 04711), 0);
	ck_assert_int_eq(cmek_tree_utimens(tree, entry.node, ts), 0);
	ck_assert_int_eq(cmek_tree_chown(tree, entry.node, (uid_t)-1, self.gid), 0);
	ck_assert_int_eq(cmek_tree_getattr(tree, entry.node, &st), 0);
	ck_assert_int_eq(st.st_mtim.tv_sec, 1500000000);
	ck_assert_int_eq(st.st_mtim.tv_nsec, 123456789);
	ck_assert_int_eq(st.st_atim.tv_sec, 1000000000);
	ck_assert_uint_eq(st.st_mode & 0777, 0711);
	ck_assert_int_eq(cmek_tree_chmod(tree, ROOT, 0750), 0);
	ck_assert_int_eq(cmek_tree_getattr(tree, ROOT, &st), 0);
	ck_assert_uint_eq(st.st_mode, S_IFDIR | 0750);

	ck_assert_int_eq(cmek_tree_lookup(tree, ROOT, "b", &again), -ENOENT);
	ck_assert_int_eq(cmek_tree_lookup(tree, entry.node, "b", &again), -ENOTDIR);
	ck_assert_int_eq(cmek_tree_lookup(tree, ROOT, "", &again), -EINVAL);
	ck_assert_int_eq(cmek_tree_lookup(tree, ROOT, "..", &again), -EINVAL);
	ck_assert_int_eq(cmek_tree_lookup(tree, ROOT, "x/y", &again), -EINVAL);
	ck_assert_int_eq(cmek_tree_lookup(tree, ROOT, ".cmekfs", &again), -ENOENT);
	ck_assert_int_eq(cmek_tree_lookup(tree, 12345, "a", &again), -ESTALE);
	ck_assert_int_eq(cmek_tree_statfs(tree, &vfs), 0);
	ck_assert_uint_eq(vfs.f_namemax, 255);
	ck_assert_int_eq(cmek_tree_syncfs(tree), 0);
	tree_end();
}
END_TEST

START_TEST(forget_and_find_again)
{
	uint64_t dir, a, b, high;
	int i;

	tree_begin(_i);
	dir = mk(ROOT, "dir");
	a = touch(dir, "a");
	ck_assert_uint_eq(find(dir, "a"), a);
	cmek_tree_forget(tree, a, 2);
	b = find(dir, "a");
	ck_assert_uint_ne(a, b);
	cmek_tree_forget(tree, b, 1);
	cmek_tree_forget(tree, dir, 1);
	high = cmek_node_table_high(tree->nodes);
	for (i = 0; i < 100; i++) {
		dir = find(ROOT, "dir");
		cmek_tree_forget(tree, find(dir, "a"), 1);
		cmek_tree_forget(tree, dir, 1);
	}
	ck_assert_uint_eq(cmek_node_table_high(tree->nodes), high);
	tree_again();
	ck_assert_int_eq(probe(ROOT, "dir"), 0);
	ck_assert_int_eq(probe(find(ROOT, "dir"), "a"), 0);
	tree_end();
}
END_TEST

START_TEST(create_existing)
{
	struct cmek_entry entry, dir;
	uint64_t a;
	int fd;

	tree_begin(_i);
	a = touch(ROOT, "a");
	ck_assert_int_eq(cmek_tree_create(tree, ROOT, "a", 0600, true, &self, &entry, &fd), -EEXIST);
	ck_assert_int_eq(cmek_tree_create(tree, ROOT, "a", 0600, false, &self, &entry, &fd), 0);
	ck_assert_uint_eq(entry.node, a);
	ck_assert_uint_eq(entry.st.st_mode & 0777, 0644);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, "x", 1, 0), 1);
	close(fd);
	ck_assert_int_eq(cmek_tree_mkdir(tree, ROOT, "a", 0700, &self, &entry), -EEXIST);
	ck_assert_int_eq(cmek_tree_mkdir(tree, ROOT, "d", 0700, &self, &dir), 0);
	ck_assert_int_eq(cmek_tree_create(tree, ROOT, "d", 0600, false, &self, &entry, &fd), 0);
	ck_assert_uint_eq(entry.node, dir.node);
	ck_assert_int_eq(fd, -1);
	ck_assert_int_eq(cmek_tree_create(tree, a, "x", 0600, true, &self, &entry, &fd), -ENOTDIR);
	ck_assert_int_eq(cmek_tree_create(tree, ROOT, name_of('x', 255), 0600, true, &self, &entry, &fd), 0);
	close(fd);
	ck_assert_int_eq(cmek_tree_create(tree, ROOT, name_of('x', 255), 0600, true, &self, &entry, &fd), -EEXIST);
	ck_assert_int_eq(probe(ROOT, name_of('x', 255)), 0);
	tree_end();
}
END_TEST

START_TEST(special_files)
{
	struct cmek_entry entry;
	uint64_t node;

	tree_begin(_i);
	ck_assert_int_eq(cmek_tree_mknod(tree, ROOT, "fifo", S_IFIFO | 0620, 0, &self, &entry), 0);
	ck_assert_uint_eq(entry.st.st_mode, S_IFIFO | 0620);
	/* A fifo or device of the store is never opened. */
	ck_assert_int_eq(cmek_tree_open_store(tree, entry.node, O_RDONLY), -EINVAL);
	ck_assert_int_eq(cmek_tree_chmod(tree, entry.node, 0600), 0);
	ck_assert_int_eq(cmek_tree_mknod(tree, ROOT, "sock", S_IFSOCK | 0777, 0, &self, &entry), 0);
	ck_assert_uint_eq(entry.st.st_mode, S_IFSOCK | 0777);
	ck_assert_int_eq(cmek_tree_mknod(tree, ROOT, "file", S_IFREG | 0640, 0, &self, &entry), 0);
	ck_assert_uint_eq(entry.st.st_mode, S_IFREG | 0640);
	if (geteuid() == 0) {
		ck_assert_int_eq(cmek_tree_mknod(tree, ROOT, "null", S_IFCHR | 0666, makedev(1, 3), &self, &entry), 0);
		ck_assert_uint_eq(entry.st.st_rdev, makedev(1, 3));
		ck_assert_int_eq(cmek_tree_open_store(tree, entry.node, O_RDWR), -EINVAL);
		ck_assert_int_eq(cmek_tree_unlink(tree, ROOT, "null"), 0);
	}
	assert_names(ROOT, "fifo", "sock", "file", NULL);
	node = find(ROOT, "fifo");
	ck_assert_int_eq(cmek_tree_unlink(tree, ROOT, "fifo"), 0);
	ck_assert_uint_ne(ino_of(node), 0);
	tree_end();
}
END_TEST

/* Names in every length around the limits, and of every byte. */
START_TEST(names)
{
	static const size_t lengths[] = { 1, 14, 174, 175, 176, 200, 254, 255 };
	char odd[256], long_name[257];
	struct cmek_entry entry;
	struct names got;
	unsigned i, n = 0;
	uint64_t dir;
	int c;

	tree_begin(_i);
	dir = mk(ROOT, "dir");
	for (i = 0; i < UNIT_ROWS(lengths); i++)
		touch(dir, name_of('n', lengths[i]));
	ck_assert_uint_eq(cmek_tree_lookup(tree, dir, name_of('n', 177), &entry), -ENOENT);
	memset(long_name, 'n', 256);
	long_name[256] = 0;
	ck_assert_int_eq(cmek_tree_mkdir(tree, dir, long_name, 0700, &self, &entry), -ENAMETOOLONG);
	for (c = 1, i = 0; c < 256; c++) {
		if (c != '/')
			odd[i++] = (char)c;
	}
	odd[i] = 0;
	ck_assert_uint_eq(i, 254);
	mk(dir, odd);
	mk(dir, " ");
	mk(dir, "...");
	mk(dir, ".cmekfs.dir");
	mk(dir, "\n");
	tree_again();
	dir = find(ROOT, "dir");
	got = list(dir, true, 3);
	ck_assert_uint_eq(got.n, UNIT_ROWS(lengths) + 5);
	for (i = 0; i < got.n; i++) {
		ck_assert_int_eq(probe(dir, got.v[i]), 0);
		n += strcmp(got.v[i], odd) == 0;
	}
	ck_assert_uint_eq(n, 1);
	for (i = 0; i < got.n; i++) {
		if (cmek_tree_unlink(tree, dir, got.v[i]) != 0)
			ck_assert_int_eq(cmek_tree_rmdir(tree, dir, got.v[i]), 0);
	}
	names_free(&got);
	assert_names(dir, NULL);
	ck_assert_int_eq(cmek_tree_rmdir(tree, ROOT, "dir"), 0);
	/* Nothing is left but the root's own. */
	ck_assert_uint_eq(count_stored("", CMEK_STORE_NAME_SHORT), 0);
	tree_end();
}
END_TEST

START_TEST(hard_links)
{
	struct cmek_entry entry;
	struct stat st;
	uint64_t dir, a, sym;

	tree_begin(_i);
	dir = mk(ROOT, "dir");
	a = touch(dir, "a");
	ck_assert_int_eq(cmek_tree_link(tree, a, ROOT, name_of('b', 200), &entry), 0);
	ck_assert_uint_eq(entry.node, a);
	ck_assert_uint_eq(entry.st.st_nlink, 2);
	ck_assert_int_eq(cmek_tree_link(tree, a, ROOT, name_of('b', 200), &entry), -EEXIST);
	ck_assert_int_eq(cmek_tree_link(tree, a, dir, "a", &entry), -EEXIST);
	ck_assert_int_eq(cmek_tree_link(tree, dir, ROOT, "c", &entry), -EPERM);
	ck_assert_int_eq(cmek_tree_symlink(tree, ROOT, "sym", "target", &self, &entry), 0);
	sym = entry.node;
	ck_assert_int_eq(cmek_tree_link(tree, sym, dir, "sym2", &entry), 0);
	ck_assert_uint_eq(entry.node, sym);
	ck_assert_uint_eq(entry.st.st_mode & S_IFMT, S_IFLNK);
	/* The name it was found by goes, it does not. */
	ck_assert_int_eq(cmek_tree_unlink(tree, dir, "a"), 0);
	ck_assert_int_eq(cmek_tree_getattr(tree, a, &st), 0);
	ck_assert_uint_eq(st.st_nlink, 1);
	ck_assert_uint_eq(find(ROOT, name_of('b', 200)), a);
	ck_assert_int_eq(cmek_tree_link(tree, a, dir, "again", &entry), 0);
	ck_assert_int_eq(cmek_tree_unlink(tree, ROOT, name_of('b', 200)), 0);
	ck_assert_int_eq(cmek_tree_unlink(tree, dir, "again"), 0);
	ck_assert_int_eq(cmek_tree_getattr(tree, a, &st), 0);
	ck_assert_uint_eq(st.st_nlink, 0);
	ck_assert_int_eq(cmek_tree_link(tree, a, dir, "back", &entry), -ENOENT);
	assert_names(ROOT, "dir", "sym", NULL);
	assert_names(dir, "sym2", NULL);
	ck_assert_uint_eq(count_stored("", CMEK_STORE_NAME_LINK), 0);
	tree_end();
}
END_TEST

/* What is known stays usable without a name: opened, changed, asked; and its number is not given to another file. */
START_TEST(unlinked)
{
	uint64_t files[50], dir, sub, file;
	struct cmek_entry entry;
	char name[16], buf[4];
	struct stat st;
	int i, k, fd;

	tree_begin(_i);
	dir = mk(ROOT, "dir");
	for (i = 0; i < 50; i++) {
		snprintf(name, sizeof name, "%d", i);
		ck_assert_int_eq(cmek_tree_create(tree, dir, name, 0600, true, &self, &entry, &fd), 0);
		files[i] = entry.node;
		ck_assert_int_eq(pwrite(fd, name, 4, 0), 4);
		close(fd);
	}
	for (i = 0; i < 50; i++) {
		snprintf(name, sizeof name, "%d", i);
		if (i % 2)
			ck_assert_int_eq(cmek_tree_unlink(tree, dir, name), 0);
		else if (i % 4)
			ck_assert_int_eq(cmek_tree_rename(tree, dir, "0", dir, name, 0), i == 2 ? 0 : -ENOENT);
		/* New files take store inode numbers that were freed, if any were. */
		cmek_tree_forget(tree, touch(dir, name_of('x', (size_t)i + 20)), 1);
	}
	for (i = 0; i < 50; i++) {
		snprintf(name, sizeof name, "%d", i);
		fd = cmek_tree_open_store(tree, files[i], O_RDWR);
		ck_assert_msg(fd >= 0, "%d: %s", i, strerror(-fd));
		memset(buf, 0, sizeof buf);
		ck_assert_int_eq(pread(fd, buf, 4, 0), 4);
		ck_assert_str_eq(buf, name);
		ck_assert_int_eq(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
		close(fd);
		ck_assert_int_eq(cmek_tree_chmod(tree, files[i], 0640), 0);
		ck_assert_int_eq(cmek_tree_getattr(tree, files[i], &st), 0);
		ck_assert_uint_eq(st.st_mode & 0777, 0640);
		ck_assert_uint_eq(st.st_nlink, i % 2 || i == 2 ? 0 : 1);
		for (k = 0; k < i; k++)
			ck_assert_uint_ne(files[i], files[k]);
	}
	for (i = 0; i < 50; i++)
		cmek_tree_forget(tree, files[i], 1);
	/* A directory, too: it is empty and takes no entries. */
	sub = mk(dir, "sub");
	file = touch(sub, "file");
	ck_assert_int_eq(cmek_tree_rmdir(tree, dir, "sub"), -ENOTEMPTY);
	ck_assert_int_eq(cmek_tree_unlink(tree, sub, "file"), 0);
	ck_assert_int_eq(cmek_tree_rmdir(tree, dir, "sub"), 0);
	ck_assert_int_eq(cmek_tree_getattr(tree, sub, &st), 0);
	ck_assert_int_eq(cmek_tree_lookup(tree, sub, "file", &entry), -ENOENT);
	ck_assert_int_eq(cmek_tree_create(tree, sub, "file", 0600, true, &self, &entry, &fd), -ENOENT);
	ck_assert_int_eq(cmek_tree_mkdir(tree, sub, "file", 0700, &self, &entry), -ENOENT);
	ck_assert_uint_ne(ino_of(file), 0);
	tree_end();
}
END_TEST

START_TEST(rmdir_and_ids)
{
	struct cmek_dir_id id;
	char path[4096];
	uint64_t dir;
	int fd;

	tree_begin(_i);
	dir = mk(ROOT, "dir");
	ck_assert_int_eq(cmek_tree_rmdir(tree, ROOT, "none"), -ENOENT);
	touch(ROOT, "file");
	ck_assert_int_eq(cmek_tree_rmdir(tree, ROOT, "file"), -ENOTDIR);
	ck_assert_int_eq(cmek_tree_unlink(tree, ROOT, "dir"), -EISDIR);
	/* No id before the first entry; a lookup makes none. */
	fd = cmek_tree_open_store(tree, dir, O_RDONLY | O_DIRECTORY);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(probe(dir, "x"), -ENOENT);
	ck_assert_int_eq(cmek_dir_id_read(fd, &id), -ENOENT);
	touch(dir, name_of('l', 255));
	ck_assert_int_eq(cmek_dir_id_read(fd, &id), 0);
	ck_assert_uint_eq(id.dek, 2);
	ck_assert_int_eq(cmek_tree_rmdir(tree, ROOT, "dir"), -ENOTEMPTY);
	ck_assert_int_eq(cmek_dir_id_read(fd, &id), 0);
	ck_assert_int_eq(cmek_tree_unlink(tree, dir, name_of('l', 255)), 0);
	/* A long-name link that a crash left behind is in nobody's way, something foreign is. */
	ck_assert_int_eq(symlinkat("x", fd, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmno-_.l"), 0);
	ck_assert_int_eq(mkdirat(fd, "lost+found", 0700), 0);
	assert_names(dir, NULL);
	ck_assert_int_eq(cmek_tree_rmdir(tree, ROOT, "dir"), -ENOTEMPTY);
	ck_assert_int_eq(cmek_dir_id_read(fd, &id), 0);
	ck_assert_int_eq(unlinkat(fd, "lost+found", AT_REMOVEDIR), 0);
	ck_assert_int_eq(cmek_tree_rmdir(tree, ROOT, "dir"), 0);
	close(fd);
	/* Never had an id. */
	mk(ROOT, "dir");
	ck_assert_int_eq(cmek_tree_rmdir(tree, ROOT, "dir"), 0);
	assert_names(ROOT, "file", NULL);

	/* Entries without an id are damage, and never get a new id. */
	snprintf(path, sizeof path, "%s/.cmekfs.dir", store);
	ck_assert_int_eq(unlink(path), 0);
	tree_again();
	ck_assert_int_eq(probe(ROOT, "file"), -EIO);
	ck_assert_int_eq(cmek_tree_readdir(tree, ROOT, 0, false, names_emit, NULL, NULL), -EIO);
	ck_assert_int_eq(cmek_tree_mkdir(tree, ROOT, "x", 0700, &self, &(struct cmek_entry){ 0 }), -EIO);
	ck_assert_int_eq(symlink("v9:nonsense", path), 0);
	ck_assert_int_eq(probe(ROOT, "file"), -EBADMSG);
	ck_assert_int_eq(unlink(path), 0);
	tree_end();
}
END_TEST

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
	char target[4097], path[64];
	struct cmek_entry entry;
	uint64_t dir, node;
	unsigned i;

	tree_symlink_max = _i < TREE_VARIANTS ? 4095 : 1023;
	tree_begin(_i % TREE_VARIANTS);
	/* tmpfs and ext4 take 4095 bytes: 1023 is what XFS would have. */
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
	struct names pieces = { 0 };
	ssize_t n;
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
	for (ssize_t at = 0; at < n;) {
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
	ck_assert_int_eq(cmek_tree_readlink(tree, entry.node, target, sizeof target), -EIO);
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
	names_free(&pieces);
	tree_end();
}
END_TEST

#define MANY 20000

/* A listing in pieces: no entry twice, none missing, while others come and go. */
START_TEST(big_listing)
{
	struct names names = { .max = 700 };
	static unsigned char seen[MANY];
	struct cmek_entry entry;
	char name[32];
	unsigned i, bad, calls = 0;
	uint64_t dir;
	int fd;

	tree_begin(_i);
	memset(seen, 0, sizeof seen);
	dir = mk(ROOT, "dir");
	for (i = 0; i < MANY; i++) {
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
	for (i = 0; i < MANY; i++)
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
	/* A long name whose link is gone, wrong, or no symlink: not listed, but still found by its name. */
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
		ck_assert_int_eq(probe(ROOT, name_of('l', 255)), 0);
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

/* While names move from one DEK to another, both are found, and no name exists twice. */
START_TEST(two_deks)
{
	struct cmek_dir_id id;
	struct cmek_entry entry;
	uint64_t node;
	int fd;

	tree_begin(_i);
	/* A directory of DEK 1, and then one that is moving to DEK 2. */
	fd = open(store, O_PATH | O_DIRECTORY | O_CLOEXEC);
	memset(&id, 7, sizeof id);
	id.dek = 1;
	id.old_dek = 0;
	ck_assert_int_eq(cmek_dir_id_restore(fd, &id), 0);
	touch(ROOT, "old");
	touch(ROOT, name_of('o', 255));
	ck_assert_int_eq(cmek_dir_id_remove(fd), 0);
	id.dek = 2;
	id.old_dek = 1;
	ck_assert_int_eq(cmek_dir_id_restore(fd, &id), 0);
	tree_again();
	node = find(ROOT, "old");
	touch(ROOT, "new");
	ck_assert_int_eq(cmek_tree_mkdir(tree, ROOT, "old", 0700, &self, &entry), -EEXIST);
	ck_assert_int_eq(cmek_tree_mkdir(tree, ROOT, name_of('o', 255), 0700, &self, &entry), -EEXIST);
	ck_assert_int_eq(cmek_tree_symlink(tree, ROOT, "old", "x", &self, &entry), -EEXIST);
	ck_assert_int_eq(cmek_tree_link(tree, node, ROOT, name_of('o', 255), &entry), -EEXIST);
	ck_assert_int_eq(cmek_tree_create(tree, ROOT, "old", 0600, false, &self, &entry, &(int){ 0 }), 0);
	ck_assert_uint_eq(entry.node, node);
	assert_names(ROOT, "old", "new", name_of('o', 255), NULL);
	ck_assert_int_eq(cmek_tree_rename(tree, ROOT, "new", ROOT, "old", RENAME_NOREPLACE), -EEXIST);
	ck_assert_int_eq(cmek_tree_rename(tree, ROOT, "new", ROOT, "old", 0), 0);
	assert_names(ROOT, "old", name_of('o', 255), NULL);
	/* A rename moves to the new DEK. */
	ck_assert_int_eq(cmek_tree_rename(tree, ROOT, name_of('o', 255), ROOT, name_of('p', 255), 0), 0);
	ck_assert_int_eq(cmek_tree_rename(tree, ROOT, "old", ROOT, "moved", 0), 0);
	ck_assert_int_eq(cmek_dir_id_remove(fd), 0);
	id.old_dek = 0;
	ck_assert_int_eq(cmek_dir_id_restore(fd, &id), 0);
	tree_again();
	assert_names(ROOT, "moved", name_of('p', 255), NULL);
	ck_assert_int_eq(cmek_tree_unlink(tree, ROOT, name_of('p', 255)), 0);
	ck_assert_uint_eq(count_stored("", CMEK_STORE_NAME_LINK), 0);
	close(fd);
	tree_end();
}
END_TEST

START_TEST(read_only)
{
	struct cmek_entry entry;
	struct timespec ts[2] = { { 0, UTIME_NOW }, { 0, UTIME_OMIT } };
	uint64_t a;
	int fd;

	tree_begin(_i);
	touch(ROOT, "a");
	tree_read_only = true;
	tree_again();
	a = find(ROOT, "a");
	ck_assert_int_eq(cmek_tree_create(tree, ROOT, "b", 0600, true, &self, &entry, &fd), -EROFS);
	ck_assert_int_eq(cmek_tree_mkdir(tree, ROOT, "b", 0600, &self, &entry), -EROFS);
	ck_assert_int_eq(cmek_tree_mknod(tree, ROOT, "b", S_IFIFO | 0600, 0, &self, &entry), -EROFS);
	ck_assert_int_eq(cmek_tree_symlink(tree, ROOT, "b", "x", &self, &entry), -EROFS);
	ck_assert_int_eq(cmek_tree_link(tree, a, ROOT, "b", &entry), -EROFS);
	ck_assert_int_eq(cmek_tree_unlink(tree, ROOT, "a"), -EROFS);
	ck_assert_int_eq(cmek_tree_rmdir(tree, ROOT, "a"), -EROFS);
	ck_assert_int_eq(cmek_tree_rename(tree, ROOT, "a", ROOT, "b", 0), -EROFS);
	ck_assert_int_eq(cmek_tree_chmod(tree, a, 0600), -EROFS);
	ck_assert_int_eq(cmek_tree_chown(tree, a, 0, 0), -EROFS);
	ck_assert_int_eq(cmek_tree_utimens(tree, a, ts), -EROFS);
	ck_assert_int_eq(cmek_tree_open_store(tree, a, O_RDWR), -EROFS);
	fd = cmek_tree_open_store(tree, a, O_RDONLY);
	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(cmek_tree_open_store(tree, a, O_WRONLY), -EINVAL);
	ck_assert_int_eq(cmek_tree_open_store(tree, a, O_RDONLY | O_DIRECTORY), -ENOTDIR);
	tree_end();
}
END_TEST

/* Others' files and directories, made by root in their name, with groups as a set-group-ID directory wants them. */
START_TEST(owners)
{
	struct cmek_cred caller = { .uid = 4711, .gid = 4712 };
	struct cmek_entry dir, entry;
	int fd;

	tree_begin(_i);
	if (geteuid() == 0) {
		ck_assert_int_eq(cmek_tree_mkdir(tree, ROOT, "dir", 0700, &self, &dir), 0);
		ck_assert_int_eq(cmek_tree_chown(tree, dir.node, 1, 4713), 0);
		ck_assert_int_eq(cmek_tree_chmod(tree, dir.node, 02700), 0);
		/* Not allowed to search the store's directory by its mode: the kernel above us has judged. */
		ck_assert_int_eq(cmek_tree_create(tree, dir.node, "f", 06755, true, &caller, &entry, &fd), 0);
		close(fd);
		ck_assert_uint_eq(entry.st.st_uid, 4711);
		ck_assert_uint_eq(entry.st.st_gid, 4713);
		ck_assert_uint_eq(entry.st.st_mode, S_IFREG | 06755);
		ck_assert_int_eq(cmek_tree_mkdir(tree, dir.node, "d", 0750, &caller, &entry), 0);
		ck_assert_uint_eq(entry.st.st_gid, 4713);
		ck_assert_uint_eq(entry.st.st_mode, S_IFDIR | 02750);
		ck_assert_int_eq(cmek_tree_mkdir(tree, ROOT, "d", 01777, &caller, &entry), 0);
		ck_assert_uint_eq(entry.st.st_uid, 4711);
		ck_assert_uint_eq(entry.st.st_gid, 4712);
		ck_assert_uint_eq(entry.st.st_mode, S_IFDIR | 01777);
		ck_assert_int_eq(cmek_tree_symlink(tree, ROOT, "s", "x", &caller, &entry), 0);
		ck_assert_uint_eq(entry.st.st_uid, 4711);
		ck_assert_int_eq(cmek_tree_mknod(tree, ROOT, "n", S_IFCHR | 0600, makedev(1, 3), &caller, &entry), 0);
		ck_assert_uint_eq(entry.st.st_gid, 4712);
	}
	/* Back to ourselves; who can't switch makes what is asked for as themselves. */
	if (geteuid() != 0)
		ck_assert_int_eq(cmek_tree_mkdir(tree, ROOT, "me", 0755, &caller, &entry), 0);
	else
		ck_assert_int_eq(cmek_tree_mkdir(tree, ROOT, "me", 0755, &self, &entry), 0);
	ck_assert_uint_eq(entry.st.st_uid, self.uid);
	ck_assert_uint_eq(entry.st.st_gid, self.gid);
	tree_end();
}
END_TEST

/* A tree much deeper than the descriptors that are kept. */
START_TEST(deep)
{
	uint64_t at = ROOT, next, parents[2000];
	struct stat st;
	int i;

	tree_begin(_i);
	for (i = 0; i < 2000; i++) {
		next = mk(at, "d");
		parents[i] = at;
		at = next;
	}
	touch(at, "bottom");
	while (cmek_fd_cache_shrink(tree->dirs))
		;
	ck_assert_int_eq(cmek_tree_getattr(tree, at, &st), 0);
	ck_assert_int_eq(probe(at, "bottom"), 0);
	/* What the directory is called in its own way changes under it. */
	ck_assert_int_eq(cmek_tree_rename(tree, parents[1000], "d", ROOT, "other", 0), 0);
	while (cmek_fd_cache_shrink(tree->dirs))
		;
	ck_assert_int_eq(probe(at, "bottom"), 0);
	ck_assert_int_eq(cmek_tree_unlink(tree, at, "bottom"), 0);
	for (i = 1999; i > 1000; i--)
		ck_assert_int_eq(cmek_tree_rmdir(tree, parents[i], "d"), 0);
	ck_assert_int_eq(cmek_tree_rmdir(tree, ROOT, "other"), 0);
	for (i = 999; i >= 0; i--)
		ck_assert_int_eq(cmek_tree_rmdir(tree, parents[i], "d"), 0);
	tree_end();
}
END_TEST

/* Directories that need a flush of their own are flushed once. */
START_TEST(flush_marks)
{
	uint64_t dir, sub, file;

	tree_begin(_i);
	ck_assert_int_eq(tree->flush_names, false);
	tree->flush_names = true; /* as on btrfs */
	dir = mk(ROOT, "dir");
	sub = mk(dir, "sub");
	file = touch(sub, "file");
	ck_assert_uint_eq(cmek_node_n_marked(tree->nodes), 3);
	ck_assert_int_eq(cmek_tree_fsync_entry(tree, file), 0);
	ck_assert_uint_eq(cmek_node_n_marked(tree->nodes), 0);
	touch(sub, "another");
	ck_assert_uint_eq(cmek_node_n_marked(tree->nodes), 0);
	touch(sub, name_of('l', 200));
	touch(dir, name_of('l', 200));
	ck_assert_uint_eq(cmek_node_n_marked(tree->nodes), 2);
	ck_assert_int_eq(cmek_tree_fsyncdir(tree, sub, true), 0);
	ck_assert_uint_eq(cmek_node_n_marked(tree->nodes), 0);
	touch(sub, name_of('m', 200));
	ck_assert_int_eq(cmek_tree_fsyncdir(tree, ROOT, false), 0);
	ck_assert_uint_eq(cmek_node_n_marked(tree->nodes), 1);
	ck_assert_int_eq(cmek_tree_syncfs(tree), 0);
	ck_assert_uint_eq(cmek_node_n_marked(tree->nodes), 0);
	tree_end();
}
END_TEST

#define THREADS 4

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

	for (i = 0; i < 200; i++) {
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
	dir = mk(ROOT, "top");
	run_threads(make_in_new_dirs, dir);
	tree_again();
	dir = find(ROOT, "top");
	for (i = 0; i < 200; i++) {
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

	for (i = 0; i < 1500; i++) {
		unsigned what = (unsigned)(next_random(&seed) % 10), na = next_random(&seed) % 4, nb = next_random(&seed) % 4;

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
		if (r && r != -ENOENT && r != -EEXIST && r != -EISDIR && r != -ENOTDIR && r != -ENOTEMPTY && r != -EPERM &&
		    r != -EINVAL) {
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

static int run_all(const char *who)
{
	Suite *suite = suite_create(who);
	TCase *tcase = tcase_create("tree");

	tcase_set_timeout(tcase, 300);
	tcase_add_loop_test(tcase, lookup_and_attributes, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, forget_and_find_again, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, create_existing, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, special_files, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, names, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, hard_links, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, unlinked, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, rmdir_and_ids, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, rename_matrix, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, rename_others, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, symlinks, 0, 2 * TREE_VARIANTS);
	tcase_add_loop_test(tcase, bad_symlinks, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, big_listing, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, fresh_listing, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, bad_entries, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, two_deks, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, read_only, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, owners, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, deep, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, flush_marks, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, threads_in_new_dirs, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, threads_scramble, 0, TREE_VARIANTS);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}

/* In a child: who has once given up root stays so. */
static int run_as_nobody(void)
{
	char dir[] = "/tmp/cmek-unit-XXXXXX";
	int status = -1;
	pid_t pid;

	if (!mkdtemp(dir) || chown(dir, 65534, 65534))
		return EXIT_FAILURE;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		if (setenv("TMPDIR", dir, 1) || setgroups(0, NULL) || setresgid(65534, 65534, 65534) ||
		    setresuid(65534, 65534, 65534))
			_exit(EXIT_FAILURE);
		exit(run_all("tree (nobody)"));
	}
	if (pid > 0)
		(void)waitpid(pid, &status, 0);
	(void)rmdir(dir);
	return status ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(void)
{
	int r = run_all("tree");

	return geteuid() == 0 && run_as_nobody() ? EXIT_FAILURE : r;
}
