/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The tree over real directories: making, finding and removing entries of all kinds, inodes without names, owners. */
#include "config.h"

#include <sys/sysmacros.h>

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
	ck_assert_int_eq(cmek_tree_statfs(tree, 0, &vfs), 0);
	ck_assert_uint_eq(vfs.f_namemax, 255);
	ck_assert_int_eq(cmek_tree_syncfs(tree), 0);
	tree_end();
}
END_TEST

/* What messages say of a node leads to its store file. */
START_TEST(said_where)
{
	char text[CMEK_TREE_WHERE_ROOM], path[8192], inside[512], name[100];
	uint64_t number = ROOT;
	struct stat st, found;
	unsigned long ino;
	int i;

	tree_begin(_i);
	ck_assert_int_eq(cmek_tree_getattr(tree, ROOT, &st), 0);
	cmek_tree_where(tree, ROOT, text);
	ck_assert_int_eq(sscanf(text, "inode %lu (%511[^)])", &ino, inside), 2);
	ck_assert_uint_eq(ino, st.st_ino);
	ck_assert_str_eq(inside, ".");
	for (i = 1; i <= 12; i++) {
		snprintf(name, sizeof name, "%0*d", i * 7, i);
		number = i < 12 ? mk(number, name) : touch(number, name);
		ck_assert_int_eq(cmek_tree_getattr(tree, number, &st), 0);
		cmek_tree_where(tree, number, text);
		ck_assert_int_eq(sscanf(text, "inode %lu (%511[^)])", &ino, inside), 2);
		ck_assert_uint_eq(ino, st.st_ino);
		if (strncmp(inside, ".../", 4) == 0)
			continue;
		snprintf(path, sizeof path, "%s/%s", store, inside);
		ck_assert_msg(lstat(path, &found) == 0, "%s", path);
		ck_assert_uint_eq(found.st_ino, st.st_ino);
		ck_assert_int_lt(i, 12);
	}
	ck_assert(strncmp(inside, ".../", 4) == 0);
	cmek_tree_where(tree, number + 1000, text);
	ck_assert_str_eq(text, "inode 0 (no name)");
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
	ck_assert_int_eq(fd, -1);
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
	ck_assert_int_eq(probe(ROOT, "file"), -ENOLINK);
	ck_assert_int_eq(cmek_tree_readdir(tree, ROOT, 0, false, names_emit, NULL, NULL), -ENOLINK);
	ck_assert_int_eq(cmek_tree_mkdir(tree, ROOT, "x", 0700, &self, &(struct cmek_entry){ 0 }), -ENOLINK);
	ck_assert_int_eq(symlink("v9:nonsense", path), 0);
	ck_assert_int_eq(probe(ROOT, "file"), -EBADMSG);
	ck_assert_int_eq(unlink(path), 0);
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

/* From the beginning, or since the store has failed. */
START_TEST(read_only)
{
	struct cmek_entry entry;
	struct timespec ts[2] = { { 0, UTIME_NOW }, { 0, UTIME_OMIT } };
	uint64_t a;
	int fd;

	tree_begin(_i % TREE_VARIANTS);
	touch(ROOT, "a");
	tree_read_only = _i < TREE_VARIANTS;
	tree_again();
	a = find(ROOT, "a");
	if (!tree_read_only)
		cmek_tree_set_read_only(tree);
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
	ck_assert_int_eq(cmek_tree_setxattr(tree, a, "user.a", "v", 1, 0), -EROFS);
	ck_assert_int_eq(cmek_tree_removexattr(tree, a, "user.a"), -EROFS);
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
	int i, depth;

	tree_begin(_i);
	depth = variant->shm ? 2000 : 200;
	for (i = 0; i < depth; i++) {
		next = mk(at, "d");
		parents[i] = at;
		at = next;
	}
	touch(at, "bottom");
	while (cmek_tree_ran_out(tree, -EMFILE))
		;
	ck_assert_int_eq(cmek_tree_getattr(tree, at, &st), 0);
	ck_assert_int_eq(probe(at, "bottom"), 0);
	/* What the directory is called in its own way changes under it. */
	ck_assert_int_eq(cmek_tree_rename(tree, parents[depth / 2], "d", ROOT, "other", 0), 0);
	while (cmek_tree_ran_out(tree, -EMFILE))
		;
	ck_assert_int_eq(probe(at, "bottom"), 0);
	ck_assert_int_eq(cmek_tree_unlink(tree, at, "bottom"), 0);
	for (i = depth - 1; i > depth / 2; i--)
		ck_assert_int_eq(cmek_tree_rmdir(tree, parents[i], "d"), 0);
	ck_assert_int_eq(cmek_tree_rmdir(tree, ROOT, "other"), 0);
	for (i = depth / 2 - 1; i >= 0; i--)
		ck_assert_int_eq(cmek_tree_rmdir(tree, parents[i], "d"), 0);
	tree_end();
}
END_TEST

/* Directories that need a flush of their own are flushed once. */
START_TEST(flush_marks)
{
	uint64_t dir, sub, file;

	tree_begin(_i);
	tree->flush_names = true; /* as on btrfs, whatever this is */
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

static Suite *make_suite(void)
{
	Suite *suite = suite_create("tree");
	TCase *tcase = tcase_create("tree");

	tcase_set_timeout(tcase, 300);
	tcase_add_loop_test(tcase, lookup_and_attributes, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, said_where, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, forget_and_find_again, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, create_existing, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, special_files, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, names, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, hard_links, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, unlinked, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, rmdir_and_ids, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, two_deks, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, read_only, 0, 2 * TREE_VARIANTS);
	tcase_add_loop_test(tcase, owners, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, deep, 0, TREE_VARIANTS);
	tcase_add_loop_test(tcase, flush_marks, 0, TREE_VARIANTS);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	return tree_run(make_suite);
}
