/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Names, targets and attributes moved to a new data key: whole, interrupted, beside those who list, look up and change. */
#include "config.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "tests/unit/tree_fixture.h"

#define ROOT CMEK_NODE_ROOT

/* What the store answers in the place of the C library's: 0, or the error of each change of an attribute. */
static int xattr_error;
/* The entry that each reading of a directory passes over, and what happens meanwhile; NULL: none. */
static const char *passed_over;
static void (*meanwhile)(void);

int setxattr(const char *path, const char *name, const void *value, size_t size, int flags)
{
	errno = xattr_error;
	return xattr_error ? -1 : (int)syscall(SYS_setxattr, path, name, value, size, flags);
}

ssize_t getdents64(int fd, void *buf, size_t size)
{
	ssize_t n = syscall(SYS_getdents64, fd, buf, size), at, len;
	const char *name = passed_over;

	for (at = 0; name && at < n; at += len) {
		const struct dirent64 *d = (const void *)((char *)buf + at);

		len = d->d_reclen;
		if (strcmp(d->d_name, name) != 0)
			continue;
		memmove((char *)buf + at, (char *)buf + at + len, (size_t)(n - at - len));
		n -= len;
		len = 0;
		meanwhile();
	}
	return n;
}

static uint8_t wrapped[4][CMEK_DEK_WRAPPED_LEN]; /* by data key; [0] is not used */

static struct cmek_keyring *new_ring(void)
{
	static const uint8_t uuid[16] = { 1, 2, 3 }, bytes[32] = { 4, 5, 6 };
	struct cmek_keyring *made = NULL;
	struct cmek_secret *kek = NULL;

	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_KEK, bytes, sizeof bytes, &kek, NULL), 0);
	ck_assert_int_eq(cmek_keyring_new(uuid, &kek, &made, NULL), 0);
	return made;
}

/* A tree under data key 1. */
static void begin(int i)
{
	tree_begin(i);
	cmek_keyring_free(ring);
	ring = new_ring();
	ck_assert_int_eq(cmek_keyring_make_dek(ring, 1, 0, CMEK_DEK_ACTIVE, wrapped[1], NULL), 0);
	tree_again();
}

/* The next data key becomes the active one. */
static void rotate(void)
{
	uint16_t active = cmek_keyring_active_dek(ring), dek;
	struct cmek_keyring *next = new_ring();

	ck_assert_int_eq(cmek_keyring_make_dek(next, active + 1, 0, CMEK_DEK_ACTIVE, wrapped[active + 1], NULL), 0);
	for (dek = 1; dek <= active; dek++)
		ck_assert_int_eq(cmek_keyring_add_dek(next, dek, 0, CMEK_DEK_DECRYPT_ONLY, wrapped[dek], NULL), 0);
	ck_assert_int_eq(cmek_keyring_adopt(ring, &next, NULL), 0);
}

/* A new mount that has the active data key alone. */
static void forget_old(void)
{
	uint16_t active = cmek_keyring_active_dek(ring);

	cmek_tree_free(tree);
	cmek_keyring_free(ring);
	ring = new_ring();
	ck_assert_int_eq(cmek_keyring_add_dek(ring, active, 0, CMEK_DEK_ACTIVE, wrapped[active], NULL), 0);
	tree_open();
}

static void move_all(uint64_t node, struct cmek_tree_reencrypt *sum)
{
	struct cmek_entry entry;
	struct names names;
	size_t i;

	ck_assert_int_eq(cmek_tree_reencrypt_xattrs(tree, node, sum), 0);
	ck_assert_int_eq(cmek_tree_reencrypt_dir(tree, node, sum), 0);
	names = list(node, false, 0);
	for (i = 0; i < names.n; i++) {
		ck_assert_int_eq(cmek_tree_lookup(tree, node, names.v[i], &entry), 0);
		if (S_ISDIR(entry.st.st_mode))
			move_all(entry.node, sum);
		else if (S_ISREG(entry.st.st_mode))
			ck_assert_int_eq(cmek_tree_reencrypt_xattrs(tree, entry.node, sum), 0);
		cmek_tree_forget(tree, entry.node, 1);
	}
	names_free(&names);
}

/* Everything moves, and nothing is left to move. */
static void move_to_the_end(void)
{
	struct cmek_tree_reencrypt sum = { 0 }, again = { 0 };

	move_all(ROOT, &sum);
	ck_assert_uint_gt(sum.moved, 0);
	ck_assert_uint_eq(sum.bad + sum.left + sum.busy, 0);
	move_all(ROOT, &again);
	ck_assert_uint_eq(again.moved + again.bad + again.left + again.busy, 0);
}

static void assert_target(uint64_t node, const char *want)
{
	char target[4096];
	int n = cmek_tree_readlink(tree, node, target, sizeof target);

	ck_assert_int_eq(n, (int)strlen(want));
	ck_assert(memcmp(target, want, (size_t)n) == 0);
}

static char long_target[2001];

static void fill(uint64_t top)
{
	uint64_t dir = mk(top, "dir"), deep = mk(dir, name_of('D', 200));
	struct cmek_entry entry;

	memset(long_target, 't', sizeof long_target - 1);
	touch(dir, "file");
	touch(dir, name_of('f', 175));
	touch(dir, name_of('f', 176));
	touch(deep, name_of('f', 255));
	mk(dir, "empty");
	mk(deep, "below");
	ck_assert_int_eq(cmek_tree_link(tree, find(dir, "file"), deep, "linked", &entry), 0);
	ck_assert_int_eq(cmek_tree_symlink(tree, dir, "short", "to somewhere", &self, &entry), 0);
	ck_assert_int_eq(cmek_tree_symlink(tree, deep, "long", long_target, &self, &entry), 0);
}

static void check_filled(uint64_t top)
{
	uint64_t dir = find(top, "dir"), deep = find(dir, name_of('D', 200));

	assert_names(dir, "file", name_of('f', 175), name_of('f', 176), name_of('D', 200), "empty", "short", NULL);
	assert_names(deep, name_of('f', 255), "below", "linked", "long", NULL);
	assert_target(find(dir, "short"), "to somewhere");
	assert_target(find(deep, "long"), long_target);
	ck_assert_uint_eq(ino_of(find(dir, "file")), ino_of(find(deep, "linked")));
}

START_TEST(whole)
{
	uint64_t dir, deep, file, symlink, long_file;
	struct stat before, after;
	char target[4096];

	tree_symlink_max = _i & 1 ? 1023 : 4095;
	begin(_i);
	fill(ROOT);
	dir = find(ROOT, "dir");
	deep = find(dir, name_of('D', 200));
	file = find(dir, "file");
	long_file = find(dir, name_of('f', 176));
	symlink = find(dir, "short");
	ck_assert_int_eq(cmek_tree_getattr(tree, dir, &before), 0);
	rotate();
	/* What comes now is under the new key already, but for the names of old directories. */
	touch(dir, "new");
	touch(mk(ROOT, "new dir"), "new too");
	ck_assert_int_eq(cmek_tree_unlink(tree, dir, "new"), 0);
	ck_assert_int_eq(cmek_tree_getattr(tree, dir, &before), 0);
	move_to_the_end();
	check_filled(ROOT);
	ck_assert_int_eq(cmek_tree_getattr(tree, dir, &after), 0);
	ck_assert_int_eq(before.st_mtim.tv_sec, after.st_mtim.tv_sec);
	ck_assert_int_eq(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
	/* Who knew them, does; a symlink is looked up anew. */
	ck_assert_uint_eq(find(dir, "file"), file);
	ck_assert_uint_eq(find(dir, name_of('f', 176)), long_file);
	ck_assert_uint_eq(find(dir, name_of('D', 200)), deep);
	ck_assert_int_eq(cmek_tree_readlink(tree, symlink, target, sizeof target), -ESTALE);
	ck_assert_int_eq(cmek_tree_unlink(tree, dir, name_of('f', 176)), 0);
	touch(dir, name_of('f', 176));
	ck_assert_uint_eq(count_stored(".cmekfs/links", CMEK_STORE_NAME_FOREIGN), (_i & 1) ? 2 : 0);
	forget_old();
	check_filled(ROOT);
	assert_names(find(ROOT, "new dir"), "new too", NULL);
	tree_end();
}
END_TEST

/* Moved half-way to key 2 when key 3 came. */
START_TEST(interrupted)
{
	struct cmek_tree_reencrypt sum = { 0 };
	struct cmek_dir_id id;
	char path[4096];
	int fd;

	begin(_i);
	touch(ROOT, "one");
	touch(ROOT, "two");
	rotate();
	/* The id names both keys, and only what comes is under the new one. */
	snprintf(path, sizeof path, "%s", store);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(cmek_dir_id_read(fd, &id), 0);
	ck_assert_uint_eq(id.dek, 1);
	id.dek = 2;
	id.old_dek = 1;
	ck_assert_int_eq(cmek_dir_id_remove(fd), 0);
	ck_assert_int_eq(cmek_dir_id_restore(fd, &id), 0);
	tree_again();
	touch(ROOT, "three");
	assert_names(ROOT, "one", "two", "three", NULL);
	ck_assert_int_eq(probe(ROOT, "one"), 0);
	rotate();
	ck_assert_int_eq(cmek_tree_reencrypt_dir(tree, ROOT, &sum), 0);
	ck_assert_uint_eq(sum.bad + sum.left + sum.busy, 0);
	ck_assert_int_eq(cmek_dir_id_read(fd, &id), 0);
	ck_assert_uint_eq(id.dek, 3);
	ck_assert_uint_eq(id.old_dek, 0);
	close(fd);
	forget_old();
	assert_names(ROOT, "one", "two", "three", NULL);
	tree_end();
}
END_TEST

/* A name under no key stays, and so does the need for the old one; the others move. */
START_TEST(bad_name)
{
	struct cmek_tree_reencrypt sum = { 0 };
	struct cmek_dir_id id;
	char path[4096];
	int fd;

	begin(_i);
	touch(ROOT, "one");
	snprintf(path, sizeof path, "%s/AAAAAAAAAAAAAAAAAAAAAAAAAAAA", store);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	close(fd);
	rotate();
	ck_assert_int_eq(cmek_tree_reencrypt_dir(tree, ROOT, &sum), 0);
	ck_assert_uint_eq(sum.bad, 1);
	ck_assert_int_eq(probe(ROOT, "one"), 0);
	fd = open(store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(cmek_dir_id_read(fd, &id), 0);
	ck_assert_uint_eq(id.old_dek, 1);
	ck_assert_int_eq(unlink(path), 0);
	memset(&sum, 0, sizeof sum);
	ck_assert_int_eq(cmek_tree_reencrypt_dir(tree, ROOT, &sum), 0);
	ck_assert_uint_eq(sum.bad, 0);
	ck_assert_int_eq(cmek_dir_id_read(fd, &id), 0);
	ck_assert_uint_eq(id.old_dek, 0);
	close(fd);
	tree_end();
}
END_TEST

/* Who is in the middle of a listing sees each name once: the directory waits for its end. */
START_TEST(while_listed)
{
	struct cmek_tree_reencrypt sum = { 0 };
	struct names names = { .max = 7 };
	unsigned bad, i;
	char name[16];

	begin(_i);
	for (i = 0; i < 40; i++) {
		snprintf(name, sizeof name, "name %u", i);
		touch(ROOT, name);
	}
	rotate();
	ck_assert_int_eq(cmek_tree_readdir(tree, ROOT, 0, false, names_emit, &names, &bad), 0);
	ck_assert_int_eq(cmek_tree_reencrypt_dir(tree, ROOT, &sum), 0);
	ck_assert_uint_eq(sum.busy, 1);
	ck_assert_uint_eq(sum.moved, 0);
	do {
		names.this_call = 0;
		ck_assert_int_eq(cmek_tree_readdir(tree, ROOT, names.off, false, names_emit, &names, &bad), 0);
	} while (names.this_call);
	ck_assert_uint_eq(names.n, 42);
	names_free(&names);
	ck_assert_int_eq(cmek_tree_reencrypt_dir(tree, ROOT, &sum), 0);
	ck_assert_uint_eq(sum.busy, 1);
	ck_assert_uint_eq(sum.moved, 41);
	names = list(ROOT, true, 7);
	ck_assert_uint_eq(names.n, 40);
	names_free(&names);
	tree_end();
}
END_TEST

static void set_attr(uint64_t node, const char *name, const char *value)
{
	ck_assert_int_eq(cmek_tree_setxattr(tree, node, name, value, strlen(value), 0), 0);
}

static void assert_attr(uint64_t node, const char *name, const char *want)
{
	char value[256];
	int n = cmek_tree_getxattr(tree, node, name, value, sizeof value);

	ck_assert_msg(n == (int)strlen(want) && memcmp(value, want, (size_t)n) == 0, "%s: %d", name, n);
}

START_TEST(attributes)
{
	struct cmek_tree_reencrypt sum = { 0 };
	uint64_t file;
	char list[256];

	begin(_i);
	file = touch(ROOT, "file");
	if (cmek_tree_setxattr(tree, file, "user.probe", "x", 1, 0) == -EOPNOTSUPP) {
		tree_end(); /* a store without attributes */
		return;
	}
	set_attr(file, "user.a", "first");
	set_attr(ROOT, "user.of the root", "value");
	rotate();
	set_attr(file, "user.b", "second");
	set_attr(file, "user.probe", "y");
	ck_assert_int_eq(cmek_tree_reencrypt_xattrs(tree, file, &sum), 0);
	ck_assert_int_eq(cmek_tree_reencrypt_xattrs(tree, ROOT, &sum), 0);
	ck_assert_uint_eq(sum.moved, 2);
	ck_assert_int_eq(cmek_tree_reencrypt_dir(tree, ROOT, &sum), 0);
	forget_old();
	file = find(ROOT, "file");
	assert_attr(file, "user.a", "first");
	assert_attr(file, "user.b", "second");
	assert_attr(file, "user.probe", "y");
	assert_attr(ROOT, "user.of the root", "value");
	ck_assert_int_eq(cmek_tree_listxattr(tree, file, true, list, sizeof list), 7 + 7 + 11);
	tree_end();
}
END_TEST

/* What the store has no room for, or refuses for whatever reason, is told: it needs the old key still. */
START_TEST(attributes_refused)
{
	static const int errors[] = { EDQUOT, ENOSPC, E2BIG, EPERM, ERANGE, EOPNOTSUPP };
	uint64_t file;
	size_t i;

	begin(_i);
	file = touch(ROOT, "file");
	if (cmek_tree_setxattr(tree, file, "user.a", "value", 5, 0) == -EOPNOTSUPP) {
		tree_end(); /* a store without attributes */
		return;
	}
	rotate();
	for (i = 0; i < UNIT_ROWS(errors); i++) {
		struct cmek_tree_reencrypt sum = { 0 };

		xattr_error = errors[i];
		ck_assert_int_eq(cmek_tree_reencrypt_xattrs(tree, file, &sum), 0);
		ck_assert_msg(sum.left == 1 && sum.moved == 0, "%s", strerror(errors[i]));
	}
	xattr_error = 0;
	move_to_the_end();
	tree_end();
}
END_TEST

static void rename_over(void)
{
	passed_over = NULL;
	ck_assert_int_eq(cmek_tree_rename(tree, ROOT, "new", ROOT, "old", 0), 0);
}

/* Something is renamed over a name under the old key, and where it is then the scan does not come by any more. */
START_TEST(passed_over_name)
{
	struct cmek_tree_reencrypt sum = { 0 };
	struct cmek_dir_id id;
	struct dirent *d;
	char stored[256];
	DIR *dir;
	int fd;

	begin(_i);
	touch(ROOT, "old");
	dir = opendir(store);
	ck_assert_ptr_nonnull(dir);
	while ((d = readdir(dir)) && cmek_name_kind(d->d_name) != CMEK_STORE_NAME_SHORT)
		;
	ck_assert_ptr_nonnull(d);
	(void)snprintf(stored, sizeof stored, "%s", d->d_name);
	(void)closedir(dir);
	rotate();
	touch(ROOT, "new");
	passed_over = stored;
	meanwhile = rename_over;
	ck_assert_int_eq(cmek_tree_reencrypt_dir(tree, ROOT, &sum), 0);
	ck_assert_ptr_null(passed_over);
	ck_assert_uint_eq(sum.bad + sum.left + sum.old, 0);
	ck_assert_int_eq(probe(ROOT, "old"), 0);
	fd = open(store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(cmek_dir_id_read(fd, &id), 0);
	ck_assert_uint_eq(id.old_dek, 0);
	close(fd);
	forget_old();
	assert_names(ROOT, "old", NULL);
	tree_end();
}
END_TEST

/* What is remembered of a directory's id is no proof: in the store it is another one, or has gone. */
START_TEST(id_changed_behind)
{
	static const uint64_t want_bad[] = { 0, 1, 1, 0 };
	struct cmek_dir_id id, other;
	uint64_t dir;
	int fd, i;

	if (tree_variants[_i].max_fds > 0)
		return; /* not much is remembered then */
	begin(_i);
	rotate();
	dir = mk(ROOT, "dir");
	touch(dir, "one");
	fd = cmek_tree_open_store(tree, dir, O_RDONLY | O_DIRECTORY);
	ck_assert_int_eq(cmek_dir_id_read(fd, &id), 0);
	ck_assert_uint_eq(id.dek, 2);
	other = id;
	other.old_dek = 1;
	for (i = 0; i < 4; i++) {
		struct cmek_tree_reencrypt sum = { 0 };

		ck_assert_int_eq(cmek_dir_id_remove(fd), 0);
		if (i != 2)
			ck_assert_int_eq(cmek_dir_id_restore(fd, i == 1 ? &other : &id), 0);
		ck_assert_int_eq(cmek_tree_reencrypt_dir(tree, dir, &sum), 0);
		ck_assert_uint_eq(sum.bad, want_bad[i]);
		ck_assert_uint_eq(sum.moved, 0);
	}
	close(fd);
	tree_end();
}
END_TEST

#define USERS 3

struct user {
	int n;
	atomic_bool *enough;
	uint64_t dir;
	int line; /* where it went wrong, 0: nowhere */
	int r;
};

static bool is(struct user *u, int line, int want, int r)
{
	u->r = r;
	u->line = r == want ? 0 : line;
	return r == want;
}

/* Files of one's own are made, found, renamed and removed; what is always there is always found. */
static void *use(void *arg)
{
	struct user *u = arg;
	char a[32], b[32], long_name[201];
	unsigned i;

	memset(long_name, 'L', 200);
	long_name[200] = 0;
	for (i = 0; i < 50 || !atomic_load(u->enough); i++) {
		struct cmek_entry entry;
		int fd = -1;

		snprintf(a, sizeof a, "%d a %u", u->n, i % 5);
		snprintf(b, sizeof b, "%d b %u", u->n, i % 3);
		if (!is(u, __LINE__, 0, cmek_tree_create(tree, ROOT, a, 0600, true, &self, &entry, &fd)))
			return u;
		close(fd);
		cmek_tree_forget(tree, entry.node, 1);
		if (!is(u, __LINE__, 0, probe(ROOT, a)) ||
		    !is(u, __LINE__, -EEXIST, cmek_tree_create(tree, ROOT, "always 3", 0600, true, &self, &entry, &fd)) ||
		    !is(u, __LINE__, 0, cmek_tree_rename(tree, ROOT, a, ROOT, b, 0)) ||
		    !is(u, __LINE__, -ENOENT, probe(ROOT, a)) || !is(u, __LINE__, 0, probe(ROOT, "always 17")) ||
		    !is(u, __LINE__, 0, probe(ROOT, long_name)) || !is(u, __LINE__, 0, cmek_tree_unlink(tree, ROOT, b)) ||
		    !is(u, __LINE__, -ENOENT, probe(ROOT, b)) ||
		    !is(u, __LINE__, 0, cmek_tree_mkdir(tree, u->dir, a, 0700, &self, &entry)))
			return u;
		cmek_tree_forget(tree, entry.node, 1);
		if (!is(u, __LINE__, 0, cmek_tree_rmdir(tree, u->dir, a)))
			return u;
	}
	return NULL;
}

#define PASSES_BESIDE_USERS 500

START_TEST(beside_users)
{
	struct cmek_tree_reencrypt sum;
	struct user users[USERS] = { { 0 } };
	atomic_bool enough = false;
	pthread_t ids[USERS];
	struct names names;
	uint64_t dir;
	char name[32];
	void *failed;
	int i, n, round, passes = 0;

	begin(_i);
	for (i = 0; i < 30; i++) {
		snprintf(name, sizeof name, "always %d", i);
		touch(ROOT, name);
	}
	touch(ROOT, name_of('L', 200));
	dir = mk(ROOT, "always a dir");
	for (i = 0; i < USERS; i++) {
		users[i].n = i;
		users[i].dir = dir;
		users[i].enough = &enough;
		ck_assert_int_eq(pthread_create(&ids[i], NULL, use, &users[i]), 0);
	}
	for (round = 0; round < 2; round++) {
		rotate();
		do {
			memset(&sum, 0, sizeof sum);
			ck_assert_int_eq(cmek_tree_reencrypt_dir(tree, ROOT, &sum), 0);
			ck_assert_int_eq(cmek_tree_reencrypt_dir(tree, dir, &sum), 0);
			ck_assert_uint_eq(sum.bad + sum.left, 0);
			names = list(ROOT, false, 5);
			for (i = n = 0; i < (int)names.n; i++)
				n += strncmp(names.v[i], "always", 6) == 0 || names.v[i][0] == 'L';
			ck_assert_int_eq(n, 32);
			names_free(&names);
			/* Users can be at a name each time: on a slow machine they once were for minutes. */
			if (++passes == PASSES_BESIDE_USERS)
				atomic_store(&enough, true);
		} while (sum.moved + sum.busy > 0);
	}
	atomic_store(&enough, true);
	for (i = 0; i < USERS; i++) {
		ck_assert_int_eq(pthread_join(ids[i], &failed), 0);
		ck_assert_msg(!failed, "thread %d, line %d: %s", i, users[i].line, strerror(abs(users[i].r)));
	}
	forget_old();
	names = list(ROOT, false, 0);
	ck_assert_uint_eq(names.n, 32);
	names_free(&names);
	tree_end();
}
END_TEST

/* The next that was noted is this node; its lookup is given back. */
static void expect_moved(uint64_t want)
{
	uint64_t node = 0;

	ck_assert(cmek_tree_moves_next(tree, &node));
	ck_assert_uint_eq(node, want);
	cmek_tree_forget(tree, node, 1);
}

/* While it is watched, what is renamed or linked is noted, each node once. */
START_TEST(moves_noted)
{
	uint64_t a, b, file, link, node;
	struct cmek_tree_reencrypt sum = { 0 };
	struct cmek_entry entry;
	char name[16];
	unsigned i;

	begin(_i);
	a = mk(ROOT, "a");
	b = mk(ROOT, "b");
	touch(a, "file");
	file = find(a, "file");
	ck_assert_int_eq(cmek_tree_symlink(tree, a, "link", "target", &self, &entry), 0);
	link = entry.node;
	ck_assert_int_eq(cmek_tree_rename(tree, a, "file", b, "file", 0), 0);
	ck_assert(!cmek_tree_moves_next(tree, &node));
	cmek_tree_moves_watch(tree);
	ck_assert(!cmek_tree_moves_next(tree, &node));
	ck_assert_int_eq(cmek_tree_rename(tree, b, "file", a, "file", 0), 0);
	ck_assert_int_eq(cmek_tree_rename(tree, a, "link", b, "link", RENAME_NOREPLACE), 0);
	ck_assert_int_eq(cmek_tree_rename(tree, a, "file", b, "file", 0), 0);
	expect_moved(file);
	ck_assert_int_eq(cmek_tree_rename(tree, b, "file", a, "file", 0), 0);
	expect_moved(link);
	ck_assert(!cmek_tree_moves_next(tree, &node));
	ck_assert_int_eq(cmek_tree_rename(tree, ROOT, "a", ROOT, "b", RENAME_EXCHANGE), 0);
	expect_moved(a);
	expect_moved(b);
	touch(a, "second");
	ck_assert_int_eq(cmek_tree_link(tree, find(a, "second"), b, "linked", &entry), 0);
	expect_moved(entry.node);
	ck_assert(cmek_tree_moves_end(tree));
	/* More than there is room for at first; and an end before all were asked for. */
	cmek_tree_moves_watch(tree);
	for (i = 0; i < 300; i++) {
		(void)snprintf(name, sizeof(name), "%u", i);
		touch(a, name);
		ck_assert_int_eq(cmek_tree_rename(tree, a, name, b, name, 0), 0);
	}
	for (i = 0; i < 299; i++) {
		ck_assert(cmek_tree_moves_next(tree, &node));
		cmek_tree_forget(tree, node, 1);
	}
	ck_assert(!cmek_tree_moves_end(tree));
	ck_assert_int_eq(cmek_tree_reencrypt_link(tree, link, &sum), 0);
	ck_assert_uint_eq(sum.old, 0);
	rotate();
	ck_assert_int_eq(cmek_tree_reencrypt_link(tree, link, &sum), 0);
	ck_assert_uint_eq(sum.old, 1);
	ck_assert_uint_eq(sum.targets, 2);
	tree_end();
}
END_TEST

static Suite *reencrypt_suite(void)
{
	Suite *suite = suite_create("tree_reencrypt");
	TCase *tc = tcase_create("tree_reencrypt");

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, whole, 0, TREE_VARIANTS);
	tcase_add_loop_test(tc, interrupted, 0, TREE_VARIANTS);
	tcase_add_loop_test(tc, bad_name, 0, TREE_VARIANTS);
	tcase_add_loop_test(tc, while_listed, 0, TREE_VARIANTS);
	tcase_add_loop_test(tc, attributes, 0, TREE_VARIANTS);
	tcase_add_loop_test(tc, attributes_refused, 0, TREE_VARIANTS);
	tcase_add_loop_test(tc, passed_over_name, 0, TREE_VARIANTS);
	tcase_add_loop_test(tc, id_changed_behind, 0, TREE_VARIANTS);
	tcase_add_loop_test(tc, beside_users, 0, TREE_VARIANTS);
	tcase_add_loop_test(tc, moves_noted, 0, TREE_VARIANTS);
	suite_add_tcase(suite, tc);
	return suite;
}

int main(void)
{
	return tree_run(reencrypt_suite);
}
