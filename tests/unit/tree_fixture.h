/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TESTS_UNIT_TREE_FIXTURE_H
#define CMEK_TESTS_UNIT_TREE_FIXTURE_H

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/tree/dir_id.h"
#include "fs/tree/tree_impl.h"
#include "tests/unit/unit.h"

/*
 * Trees over a real directory, on tmpfs and on the file system of $TMPDIR, each with the store's handles (where we may
 * open them) and without: the second way is what an unprivileged mount uses.
 */
struct tree_variant {
	bool shm;
	bool by_hint;
	unsigned max_fds;
};

static const struct tree_variant tree_variants[] = {
	{ .shm = false, .by_hint = false, .max_fds = 0 },
	{ .shm = true, .by_hint = false, .max_fds = 0 },
	{ .shm = false, .by_hint = true, .max_fds = 0 },
	{ .shm = true, .by_hint = true, .max_fds = 1 },
};
#define TREE_VARIANTS UNIT_ROWS(tree_variants)

static struct cmek_keyring *ring;
static struct cmek_tree *tree;
static char *store;
static struct cmek_cred self;
static const struct tree_variant *variant;
static uint32_t tree_symlink_max = 4095;
static bool tree_read_only;

/* The same names with each DEK, so that a tree made anew finds what the last one left. */
static inline void tree_make_ring(void)
{
	static const uint8_t uuid[16] = { 1, 2, 3 }, bytes[32] = { 4, 5, 6 };
	uint8_t wrapped[CMEK_DEK_WRAPPED_LEN];
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_secret *kek = NULL;

	cmek_secret_allow_unlocked();
	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_KEK, bytes, sizeof bytes, &kek, &err), 0);
	ck_assert_int_eq(cmek_keyring_new(uuid, &kek, &ring, &err), 0);
	ck_assert_int_eq(cmek_keyring_make_dek(ring, 1, 0, CMEK_DEK_DECRYPT_ONLY, wrapped, &err), 0);
	ck_assert_int_eq(cmek_keyring_make_dek(ring, 2, 0, CMEK_DEK_ACTIVE, wrapped, &err), 0);
}

static inline void tree_open(void)
{
	struct cmek_tree_params params = { .block_size = 4096, .symlink_max = tree_symlink_max,
					   .max_fds = variant->max_fds, .max_nodes = 1 << 20,
					   .read_only = tree_read_only };
	struct cmek_error err = CMEK_ERROR_INIT;
	int fd = open(store, O_PATH | O_DIRECTORY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_msg(cmek_tree_new(fd, ring, &params, &tree, &err) == 0, "%s", err.text);
	if (variant->by_hint)
		tree->by_handle = false;
}

static inline void tree_begin(int i)
{
	char path[4096];

	variant = &tree_variants[i];
	umask(0);
	self.uid = geteuid();
	self.gid = getegid();
	if (variant->shm)
		ck_assert_int_gt(asprintf(&store, "/dev/shm/cmek-unit-XXXXXX"), 0);
	if (variant->shm)
		ck_assert_ptr_nonnull(mkdtemp(store));
	else
		store = unit_tmpdir();
	snprintf(path, sizeof path, "%s/.cmekfs", store);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	tree_make_ring();
	tree_open();
}

/* A new mount of the same store. */
static inline void tree_again(void)
{
	cmek_tree_free(tree);
	tree = NULL;
	tree_open();
}

static inline void tree_end(void)
{
	cmek_tree_free(tree);
	cmek_keyring_free(ring);
	unit_rmtree(store);
	tree = NULL;
	tree_symlink_max = 4095;
	tree_read_only = false;
}

/* Short forms */

static inline uint64_t mk(uint64_t parent, const char *name)
{
	struct cmek_entry entry;

	ck_assert_int_eq(cmek_tree_mkdir(tree, parent, name, 0755, &self, &entry), 0);
	return entry.node;
}

static inline uint64_t touch(uint64_t parent, const char *name)
{
	struct cmek_entry entry;
	int fd, r = cmek_tree_create(tree, parent, name, 0644, true, &self, &entry, &fd);

	ck_assert_msg(r == 0, "create %.20s: %s", name, strerror(-r));
	ck_assert_int_ge(fd, 0);
	close(fd);
	return entry.node;
}

static inline uint64_t find(uint64_t parent, const char *name)
{
	struct cmek_entry entry;
	int r = cmek_tree_lookup(tree, parent, name, &entry);

	ck_assert_msg(r == 0, "lookup %.20s: %s", name, strerror(-r));
	return entry.node;
}

/* What a lookup says, without keeping it. */
static inline int probe(uint64_t parent, const char *name)
{
	struct cmek_entry entry;
	int r = cmek_tree_lookup(tree, parent, name, &entry);

	if (r == 0)
		cmek_tree_forget(tree, entry.node, 1);
	return r;
}

static inline uint64_t ino_of(uint64_t node)
{
	struct stat st;
	int r = cmek_tree_getattr(tree, node, &st);

	ck_assert_msg(r == 0, "getattr: %s", strerror(-r));
	return st.st_ino;
}

/* A name of n bytes that differs by `c`. The result lives until the fourth call. */
static inline const char *name_of(char c, size_t n)
{
	static char names[4][256];
	static unsigned at;
	char *name = names[at++ % 4];

	memset(name, c, n);
	name[n] = 0;
	return name;
}

/* Listings */

struct names {
	char **v;
	size_t n, space;
	size_t max, this_call; /* full after so many in one call, 0: never */
	uint64_t off;          /* to go on from */
	bool plus;
};

static inline int names_emit(void *arg, const char *name, const struct cmek_entry *entry, uint64_t next_off)
{
	struct names *names = arg;

	if (names->max && names->this_call == names->max)
		return 1;
	if (names->n == names->space) {
		names->space = names->space ? names->space * 2 : 64;
		names->v = realloc(names->v, names->space * sizeof *names->v);
	}
	if (names->plus && strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
		ck_assert_uint_ne(entry->node, 0);
		ck_assert_uint_ne(entry->st.st_nlink, 0);
		cmek_tree_forget(tree, entry->node, 1);
	} else {
		ck_assert_uint_eq(entry->node, 0);
	}
	ck_assert_uint_ne(entry->st.st_ino, 0);
	ck_assert_uint_ne(entry->st.st_mode & S_IFMT, 0);
	names->v[names->n++] = strdup(name);
	names->off = next_off;
	names->this_call++;
	return 0;
}

static inline int names_cmp(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static inline void names_free(struct names *names)
{
	while (names->n)
		free(names->v[--names->n]);
	free(names->v);
	memset(names, 0, sizeof *names);
}

/* All names of a directory but "." and "..", sorted, in calls of at most `max` entries. */
static inline struct names list(uint64_t dir, bool plus, size_t max)
{
	struct names names = { .max = max, .plus = plus };
	unsigned bad;
	size_t i, n;

	do {
		names.this_call = 0;
		ck_assert_int_eq(cmek_tree_readdir(tree, dir, names.off, plus, names_emit, &names, &bad), 0);
		ck_assert_uint_eq(bad, 0);
	} while (names.this_call);
	for (i = n = 0; i < names.n; i++) {
		if (strcmp(names.v[i], ".") == 0 || strcmp(names.v[i], "..") == 0)
			free(names.v[i]);
		else
			names.v[n++] = names.v[i];
	}
	ck_assert_uint_eq(names.n - n, 2);
	names.n = n;
	qsort(names.v, names.n, sizeof *names.v, names_cmp);
	return names;
}

/* The directory holds just these names (NULL at the end). */
static inline void assert_names(uint64_t dir, ...)
{
	char *want[32];
	struct names got;
	unsigned n = 0, plus, i;
	va_list ap;

	va_start(ap, dir);
	while ((want[n] = va_arg(ap, char *)))
		n++;
	va_end(ap);
	qsort(want, n, sizeof want[0], names_cmp);
	for (plus = 0; plus < 2; plus++) {
		got = list(dir, plus, 0);
		ck_assert_uint_eq(got.n, n);
		for (i = 0; i < n; i++)
			ck_assert_str_eq(got.v[i], want[i]);
		names_free(&got);
	}
}

/* Names in a directory of the store that are `kind`; path is below the store. */
static inline unsigned count_stored(const char *path, enum cmek_store_name_kind kind)
{
	char full[8192], buf[32768];
	unsigned n = 0;
	ssize_t len, at;
	int fd;

	snprintf(full, sizeof full, "%s/%s", store, path);
	fd = open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	while ((len = getdents64(fd, buf, sizeof buf)) > 0) {
		for (at = 0; at < len;) {
			const struct dirent64 *d = (const void *)(buf + at);

			n += cmek_name_kind(d->d_name) == kind && d->d_name[0] != '.';
			at += d->d_reclen;
		}
	}
	close(fd);
	return n;
}

/* Runs */

/* In a child: who has once given up root stays so. */
static inline int tree_run_as_nobody(Suite *(*suite)(void))
{
	const char *parent = getenv("TMPDIR");
	char dir[4096];
	int status = -1;
	pid_t pid;

	snprintf(dir, sizeof dir, "%s/cmek-unit-XXXXXX", parent ? parent : "/tmp");
	if (!mkdtemp(dir) || chown(dir, 65534, 65534))
		return EXIT_FAILURE;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		if (setenv("TMPDIR", dir, 1) || setgroups(0, NULL) || setresgid(65534, 65534, 65534) ||
		    setresuid(65534, 65534, 65534))
			_exit(EXIT_FAILURE);
		printf("as nobody: ");
		exit(unit_run(suite()));
	}
	if (pid > 0)
		(void)waitpid(pid, &status, 0);
	(void)rmdir(dir);
	return status ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* main: as who runs it, and as nobody, too, when that is root. */
static inline int tree_run(Suite *(*suite)(void))
{
	int r = unit_run(suite());

	return geteuid() == 0 && tree_run_as_nobody(suite) ? EXIT_FAILURE : r;
}

#endif
