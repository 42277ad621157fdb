/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The header copies on the disk: which one is picked, that damage to one is survived, the lock, and updates that are
 * cut short, or fail, at every system call that changes the disk (linked with --wrap for those).
 */
#include "config.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/volume/volhdr_store.h"
#include "tests/unit/unit.h"
#include "tests/unit/volume.h"

/* Counts the calls that change the disk; at the chosen one the process ends, or the call fails. 0 = never. */
static struct {
	unsigned calls, exit_at, fail_at;
	int fail_with;
} fault;

#define EXIT_CRASHED 42

static int fault_now(void)
{
	fault.calls++;
	if (fault.exit_at && fault.calls == fault.exit_at)
		_exit(EXIT_CRASHED);
	if (fault.fail_at && fault.calls == fault.fail_at) {
		errno = fault.fail_with;
		return 1;
	}
	return 0;
}

ssize_t __real_write(int fd, const void *buf, size_t n);
ssize_t __wrap_write(int fd, const void *buf, size_t n);
ssize_t __wrap_write(int fd, const void *buf, size_t n)
{
	/* Half of it reaches the disk before the crash, so that a torn copy is among the cases. */
	if (fault.exit_at && fault.calls + 1 == fault.exit_at && n > 1)
		n = (size_t)__real_write(fd, buf, n / 2);
	return fault_now() ? -1 : __real_write(fd, buf, n);
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
	return fault_now() ? -1 : __real_fsync(fd);
}

int __real_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	return fault_now() ? -1 : __real_renameat(from_fd, from, to_fd, to);
}

static struct unit_volume v;
static struct cmek_report report;
static struct cmek_error err;

static void setup(void)
{
	memset(&fault, 0, sizeof(fault));
	err = (struct cmek_error)CMEK_ERROR_INIT;
	unit_volume_init(&v, 1);
	unit_volume_write(&v);
	report = unit_volume_report(&v);
}

static void teardown(void)
{
	unit_volume_done(&v);
}

static struct cmek_volhdr_store *open_store(enum cmek_store_access access)
{
	struct cmek_volhdr_store *store = NULL;
	struct cmek_error e = CMEK_ERROR_INIT;

	ck_assert_msg(cmek_volhdr_store_open(v.store_fd, access, &report, &store, &e) == 0, "%s", e.text);
	return store;
}

static int refused(enum cmek_store_access access)
{
	struct cmek_volhdr_store *store = NULL;

	err = (struct cmek_error)CMEK_ERROR_INIT;
	ck_assert_int_ne(cmek_volhdr_store_open(v.store_fd, access, &report, &store, &err), 0);
	ck_assert_ptr_null(store);
	return (int)err.kind;
}

/* A copy of the picked header with another label. */
static struct cmek_volhdr *changed(const struct cmek_volhdr_store *store, const char *label)
{
	uint8_t *bytes = NULL;
	struct cmek_volhdr *hdr = NULL;
	size_t len = 0;

	ck_assert_int_eq(cmek_volhdr_encode(cmek_volhdr_store_header(store), v.mac_key, &bytes, &len, NULL), 0);
	ck_assert_int_eq(cmek_volhdr_decode(bytes, len, &hdr, NULL), 0);
	strcpy(hdr->label, label);
	free(bytes);
	return hdr;
}

/* The HMAC of the picked copy. */
static int verify(const struct cmek_volhdr_store *store)
{
	const char *name = NULL;
	size_t len = 0;
	const uint8_t *bytes = cmek_volhdr_store_bytes(store, &len, &name);

	ck_assert(!strcmp(name, "header.0") || !strcmp(name, "header.1"));
	return cmek_volhdr_verify(bytes, len, v.mac_key, NULL);
}

START_TEST(opens)
{
	struct cmek_volhdr_store *store = open_store(CMEK_STORE_READ);

	ck_assert_str_eq(cmek_volhdr_store_header(store)->label, "unit");
	ck_assert_uint_eq(cmek_volhdr_store_header(store)->sequence, 1);
	ck_assert(!cmek_volhdr_store_unequal(store));
	ck_assert_int_eq(verify(store), 0);
	ck_assert_str_eq(v.reports, "");
	cmek_volhdr_store_close(store);
	cmek_volhdr_store_close(NULL);
}
END_TEST

START_TEST(no_volume)
{
	ck_assert_int_eq(renameat(v.store_fd, ".cmekfs", v.store_fd, "away"), 0);
	ck_assert_int_eq(refused(CMEK_STORE_PEEK), CMEK_E_NOT_FOUND);
	ck_assert_int_eq(symlinkat("away", v.store_fd, ".cmekfs"), 0);
	ck_assert_int_eq(refused(CMEK_STORE_PEEK), CMEK_E_BAD_FORMAT);
	ck_assert_int_eq(unlinkat(v.store_fd, ".cmekfs", 0), 0);
	close(openat(v.store_fd, ".cmekfs", O_CREAT | O_RDWR, 0600));
	ck_assert_int_eq(refused(CMEK_STORE_PEEK), CMEK_E_BAD_FORMAT);
	ck_assert_int_eq(unlinkat(v.store_fd, ".cmekfs", 0), 0);
	ck_assert_int_eq(mkdirat(v.store_fd, ".cmekfs", 0700), 0);
	ck_assert_int_eq(refused(CMEK_STORE_PEEK), CMEK_E_NOT_FOUND);
	ck_assert_ptr_nonnull(strstr(err.text, "header.0"));
	ck_assert_ptr_nonnull(strstr(err.text, "header.1"));
}
END_TEST

START_TEST(update)
{
	struct cmek_volhdr_store *store = open_store(CMEK_STORE_WRITE);
	struct cmek_volhdr *hdr = changed(store, "new");

	ck_assert_int_eq(cmek_volhdr_store_update(store, &hdr, v.mac_key, NULL), 0);
	ck_assert_ptr_null(hdr);
	ck_assert_str_eq(cmek_volhdr_store_header(store)->label, "new");
	ck_assert(!cmek_volhdr_store_unequal(store));
	hdr = changed(store, "newer");
	ck_assert_int_eq(cmek_volhdr_store_update(store, &hdr, v.mac_key, NULL), 0);
	cmek_volhdr_store_close(store);
	store = open_store(CMEK_STORE_PEEK);
	ck_assert_str_eq(cmek_volhdr_store_header(store)->label, "newer");
	ck_assert_uint_eq(cmek_volhdr_store_header(store)->sequence, 3);
	ck_assert(!cmek_volhdr_store_unequal(store));
	ck_assert_int_eq(verify(store), 0);
	cmek_volhdr_store_close(store);
}
END_TEST

/* Loop: which copy is the newer one. */
START_TEST(the_newer_is_picked)
{
	struct cmek_volhdr_store *store;

	v.hdr->sequence = 5;
	strcpy(v.hdr->label, "newer");
	unit_copy_put(&v, _i, v.hdr, v.mac_key);
	store = open_store(CMEK_STORE_WRITE);
	ck_assert_str_eq(cmek_volhdr_store_header(store)->label, "newer");
	ck_assert(cmek_volhdr_store_unequal(store));
	ck_assert_int_eq(cmek_volhdr_store_repair(store, NULL), 0);
	ck_assert(!cmek_volhdr_store_unequal(store));
	cmek_volhdr_store_close(store);
	store = open_store(CMEK_STORE_PEEK);
	ck_assert(!cmek_volhdr_store_unequal(store));
	ck_assert_uint_eq(cmek_volhdr_store_header(store)->sequence, 5);
	cmek_volhdr_store_close(store);
}
END_TEST

/* For a header that comes from elsewhere: whatever the copies are, it takes their place. */
START_TEST(put_over_anything)
{
	struct cmek_volhdr_store *store = NULL;
	struct cmek_volhdr *hdr;

	ck_assert_int_eq(cmek_volhdr_store_open_any(v.store_fd, CMEK_STORE_WRITE, &store, &err), 0);
	ck_assert_str_eq(cmek_volhdr_store_header(store)->label, "unit");
	ck_assert_int_eq(refused(CMEK_STORE_READ), CMEK_E_BUSY);
	hdr = changed(store, "other");
	cmek_volhdr_store_close(store);
	unit_copy_write(&v, 0, "damage", 6);
	ck_assert_int_eq(unlinkat(v.meta_fd, "header.1", 0), 0);
	store = NULL;
	ck_assert_int_eq(cmek_volhdr_store_open_any(v.store_fd, CMEK_STORE_WRITE, &store, &err), 0);
	ck_assert_ptr_null(cmek_volhdr_store_header(store));
	hdr->sequence = 70;
	ck_assert_msg(cmek_volhdr_store_put(store, &hdr, v.mac_key, &err) == 0, "%s", err.text);
	ck_assert_ptr_null(hdr);
	ck_assert_uint_eq(cmek_volhdr_store_header(store)->sequence, 70);
	ck_assert(!cmek_volhdr_store_unequal(store));
	cmek_volhdr_store_close(store);
	store = open_store(CMEK_STORE_PEEK);
	ck_assert_str_eq(cmek_volhdr_store_header(store)->label, "other");
	cmek_volhdr_store_close(store);
}
END_TEST

/* The right to change the header, and that nobody mounts meanwhile; both until close. */
START_TEST(claim)
{
	struct cmek_volhdr_store *store = NULL, *reader = open_store(CMEK_STORE_READ);

	ck_assert_int_eq(cmek_volhdr_store_open_any(v.store_fd, CMEK_STORE_CHANGE, &store, &err), 0);
	ck_assert_int_eq(cmek_volhdr_store_claim(store, &err), -EBUSY);
	ck_assert_int_eq(err.kind, CMEK_E_BUSY);
	cmek_error_clear(&err);
	cmek_volhdr_store_close(reader);
	ck_assert_int_eq(cmek_volhdr_store_claim(store, &err), 0);
	ck_assert_int_eq(refused(CMEK_STORE_READ), CMEK_E_BUSY);
	ck_assert_int_eq(refused(CMEK_STORE_WRITE), CMEK_E_BUSY);
	ck_assert_int_eq(refused(CMEK_STORE_CHANGE_NOW), CMEK_E_BUSY);
	cmek_volhdr_store_close(store);
	cmek_volhdr_store_close(open_store(CMEK_STORE_WRITE));
}
END_TEST

START_TEST(yield)
{
	struct cmek_volhdr_store *store;
	struct cmek_volhdr *hdr;

	v.hdr->sequence = 5;
	strcpy(v.hdr->label, "newer");
	unit_copy_put(&v, 1, v.hdr, v.mac_key);
	store = open_store(CMEK_STORE_WRITE);
	ck_assert_int_eq(cmek_volhdr_store_yield(store), 0);
	ck_assert_str_eq(cmek_volhdr_store_header(store)->label, "unit");
	ck_assert_int_eq(cmek_volhdr_store_yield(store), -ENOENT);
	/* The copy that was given up is the first to be overwritten, whatever its number said. */
	hdr = changed(store, "third");
	ck_assert_int_eq(cmek_volhdr_store_update(store, &hdr, v.mac_key, NULL), 0);
	ck_assert_uint_eq(cmek_volhdr_store_header(store)->sequence, 2);
	cmek_volhdr_store_close(store);
	store = open_store(CMEK_STORE_PEEK);
	ck_assert_str_eq(cmek_volhdr_store_header(store)->label, "third");
	ck_assert(!cmek_volhdr_store_unequal(store));
	cmek_volhdr_store_close(store);
}
END_TEST

/* Loop: the damaged copy. Any byte of it may be wrong but the HMAC's, which nobody can judge before the unlock. */
START_TEST(a_damaged_copy_is_survived)
{
	uint8_t good[UNIT_COPY_LEN], bad[UNIT_COPY_LEN];
	struct cmek_volhdr_store *store;
	size_t i;

	unit_copy_read(&v, _i, good);
	for (i = 0; i < UNIT_COPY_LEN; i += i < 130 ? 1 : 97) {
		if (i == 88)
			i = 120;
		memcpy(bad, good, sizeof(bad));
		bad[i] ^= 0x10;
		unit_copy_write(&v, _i, bad, sizeof(bad));
		v.reports[0] = '\0';
		store = open_store(CMEK_STORE_WRITE);
		ck_assert_str_eq(cmek_volhdr_store_header(store)->label, "unit");
		ck_assert_ptr_nonnull(strstr(v.reports, unit_copy_name(_i)));
		ck_assert(cmek_volhdr_store_unequal(store));
		ck_assert_int_eq(cmek_volhdr_store_yield(store), -ENOENT);
		ck_assert_int_eq(cmek_volhdr_store_repair(store, NULL), 0);
		cmek_volhdr_store_close(store);
		unit_copy_read(&v, _i, bad);
		ck_assert_mem_eq(good, bad, UNIT_COPY_LEN);
	}
}
END_TEST

/* Ways a copy's name can stand for something that is no copy; the other one is used. */
enum trick { CUT, EMPTY, HUGE_FILE, MISSING, DIRECTORY, FIFO, LINK, N_TRICKS };

START_TEST(tricks)
{
	struct cmek_volhdr_store *store;
	uint8_t bytes[UNIT_COPY_LEN];
	const char *name = unit_copy_name(_i % 2);

	unit_copy_read(&v, _i % 2, bytes);
	ck_assert_int_eq(unlinkat(v.meta_fd, name, 0), 0);
	switch ((enum trick)(_i / 2)) {
	case CUT:
		unit_copy_write(&v, _i % 2, bytes, UNIT_COPY_LEN - 1);
		break;
	case EMPTY:
		unit_copy_write(&v, _i % 2, bytes, 0);
		break;
	case HUGE_FILE:
		unit_copy_write(&v, _i % 2, bytes, UNIT_COPY_LEN);
		ck_assert_int_eq(fchmodat(v.meta_fd, name, 0600, 0), 0);
		{
			int fd = openat(v.meta_fd, name, O_RDWR | O_CLOEXEC);

			ck_assert_int_eq(ftruncate(fd, (off_t)1 << 40), 0);
			close(fd);
		}
		break;
	case DIRECTORY:
		ck_assert_int_eq(mkdirat(v.meta_fd, name, 0700), 0);
		break;
	case FIFO:
		ck_assert_int_eq(mkfifoat(v.meta_fd, name, 0600), 0);
		break;
	case LINK:
		ck_assert_int_eq(symlinkat(unit_copy_name(!(_i % 2)), v.meta_fd, name), 0);
		break;
	default:
		break;
	}
	store = open_store(CMEK_STORE_WRITE);
	ck_assert_str_eq(cmek_volhdr_store_header(store)->label, "unit");
	ck_assert(v.reports[0] != '\0');
	if (_i / 2 == DIRECTORY) {
		ck_assert_int_ne(cmek_volhdr_store_repair(store, NULL), 0);
	} else {
		ck_assert_int_eq(cmek_volhdr_store_repair(store, NULL), 0);
		unit_copy_read(&v, _i % 2, bytes);
	}
	cmek_volhdr_store_close(store);
}
END_TEST

START_TEST(both_damaged)
{
	unit_copy_write(&v, 0, "CMEKFS\r\n", 8);
	unit_copy_write(&v, 1, "garbage", 7);
	ck_assert_int_eq(refused(CMEK_STORE_WRITE), CMEK_E_BAD_FORMAT);
	ck_assert_ptr_nonnull(strstr(err.text, "header.0"));
	ck_assert_ptr_nonnull(strstr(err.text, "header.1"));
}
END_TEST

START_TEST(copies_of_two_volumes)
{
	v.hdr->uuid[0] ^= 1;
	unit_copy_put(&v, 1, v.hdr, v.mac_key);
	ck_assert_int_eq(refused(CMEK_STORE_PEEK), CMEK_E_BAD_FORMAT);
	ck_assert_ptr_nonnull(strstr(err.text, "two volumes"));
}
END_TEST

/* A whole copy that this program is too old for counts when it is the newer one, and only then. */
START_TEST(a_later_version_is_not_passed_over)
{
	uint8_t bytes[UNIT_COPY_LEN];
	struct cmek_volhdr_store *store;

	unit_copy_read(&v, 1, bytes);
	cmek_store32(bytes + 8, 2);
	unit_copy_reseal(bytes);
	unit_copy_write(&v, 1, bytes, sizeof(bytes));
	store = open_store(CMEK_STORE_PEEK);
	cmek_volhdr_store_close(store);

	cmek_store64(bytes + 16, 2);
	unit_copy_reseal(bytes);
	unit_copy_write(&v, 1, bytes, sizeof(bytes));
	ck_assert_int_eq(refused(CMEK_STORE_PEEK), CMEK_E_UNSUPPORTED);

	bytes[4096]++; /* not whole: then it is just damage */
	unit_copy_write(&v, 1, bytes, sizeof(bytes));
	store = open_store(CMEK_STORE_PEEK);
	cmek_volhdr_store_close(store);
}
END_TEST

static const struct {
	enum cmek_store_access first, second;
	int fits;
} locks[] = {
	{ CMEK_STORE_WRITE, CMEK_STORE_WRITE, 0 }, { CMEK_STORE_WRITE, CMEK_STORE_READ, 0 },
	{ CMEK_STORE_READ, CMEK_STORE_WRITE, 0 },  { CMEK_STORE_READ, CMEK_STORE_READ, 1 },
	{ CMEK_STORE_WRITE, CMEK_STORE_PEEK, 1 },  { CMEK_STORE_PEEK, CMEK_STORE_WRITE, 1 },
};

START_TEST(locking)
{
	struct cmek_volhdr_store *first = open_store(locks[_i].first);

	if (locks[_i].fits)
		cmek_volhdr_store_close(open_store(locks[_i].second));
	else
		ck_assert_int_eq(refused(locks[_i].second), CMEK_E_BUSY);
	cmek_volhdr_store_close(first);
	cmek_volhdr_store_close(open_store(locks[_i].second));
}
END_TEST

/* A mount's daemon inherits the lock from its supervisor: it lasts until the last of them is gone. */
START_TEST(the_lock_is_inherited)
{
	struct cmek_volhdr_store *store = open_store(CMEK_STORE_WRITE);
	int ready[2], status;
	char byte;
	pid_t pid;

	ck_assert_int_eq(pipe(ready), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		close(ready[1]);
		_exit(read(ready[0], &byte, 1) != 0); /* until the parent closes its end */
	}
	cmek_volhdr_store_close(store);
	close(ready[0]);
	ck_assert_int_eq(refused(CMEK_STORE_WRITE), CMEK_E_BUSY);
	close(ready[1]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	cmek_volhdr_store_close(open_store(CMEK_STORE_WRITE));
}
END_TEST

/* The lock's name may stand for something else: that must not hang or be followed. */
START_TEST(a_lock_that_is_none)
{
	struct cmek_volhdr_store *store;

	ck_assert_int_eq(unlinkat(v.meta_fd, "lock", 0), 0);
	ck_assert_int_eq(symlinkat("header.0", v.meta_fd, "lock"), 0);
	ck_assert_int_eq(refused(CMEK_STORE_WRITE), CMEK_E_SYSTEM);
	ck_assert_int_eq(unlinkat(v.meta_fd, "lock", 0), 0);
	ck_assert_int_eq(mkfifoat(v.meta_fd, "lock", 0600), 0);
	ck_assert_int_eq(refused(CMEK_STORE_READ), CMEK_E_BAD_FORMAT);
	ck_assert_int_eq(unlinkat(v.meta_fd, "lock", 0), 0);
	store = open_store(CMEK_STORE_WRITE); /* one that is missing is made */
	ck_assert_int_eq(refused(CMEK_STORE_WRITE), CMEK_E_BUSY);
	cmek_volhdr_store_close(store);
}
END_TEST

START_TEST(stale)
{
	struct cmek_volhdr_store *store = open_store(CMEK_STORE_WRITE);
	struct cmek_volhdr *hdr = changed(store, "mine");

	strcpy(v.hdr->label, "theirs");
	unit_copy_put(&v, 0, v.hdr, v.mac_key);
	ck_assert_int_eq(cmek_volhdr_store_update(store, &hdr, v.mac_key, &err), -ESTALE);
	ck_assert_int_eq(err.kind, CMEK_E_BUSY);
	ck_assert_ptr_nonnull(hdr);
	ck_assert_int_eq(cmek_volhdr_store_repair(store, NULL), -ESTALE);
	cmek_volhdr_free(hdr);
	cmek_volhdr_store_close(store);
}
END_TEST

/* Nothing is left behind but what belongs there. */
static void check_names(void)
{
	DIR *dir = fdopendir(openat(v.meta_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	struct dirent *entry;

	ck_assert_ptr_nonnull(dir);
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			ck_assert_msg(!strcmp(entry->d_name, "header.0") || !strcmp(entry->d_name, "header.1") ||
				      !strcmp(entry->d_name, "lock"), "left: %s", entry->d_name);
		else
			ck_assert_msg(!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."), "left: %s",
				      entry->d_name);
	closedir(dir);
}

/* What is in effect after an update that was cut: the old header or the new one, whole; the number of it. */
static uint64_t after_the_cut(uint64_t old)
{
	struct cmek_volhdr_store *store = open_store(CMEK_STORE_WRITE);
	const struct cmek_volhdr *hdr = cmek_volhdr_store_header(store);
	uint64_t sequence = hdr->sequence;

	ck_assert_int_eq(verify(store), 0);
	ck_assert(sequence == old || sequence == old + 1);
	ck_assert_str_eq(hdr->label, sequence == old ? "unit" : "new");
	ck_assert_str_eq(v.reports, ""); /* neither copy is ever a bad one */
	if (cmek_volhdr_store_unequal(store))
		ck_assert_int_eq(cmek_volhdr_store_repair(store, NULL), 0);
	cmek_volhdr_store_close(store);
	check_names();
	return sequence;
}

static void restore(void)
{
	unit_copy_put(&v, 0, v.hdr, v.mac_key);
	unit_copy_put(&v, 1, v.hdr, v.mac_key);
}

START_TEST(a_crash_at_every_step)
{
	struct cmek_volhdr_store *store;
	struct cmek_volhdr *hdr;
	uint64_t last = 1, now;
	unsigned step;
	int status = 0;
	pid_t pid;

	for (step = 1;; step++) {
		fflush(NULL);
		pid = fork();
		ck_assert_int_ge(pid, 0);
		if (!pid) {
			store = open_store(CMEK_STORE_WRITE);
			hdr = changed(store, "new");
			fault.calls = 0;
			fault.exit_at = step;
			_exit(cmek_volhdr_store_update(store, &hdr, v.mac_key, NULL) ? 1 : 0);
		}
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == EXIT_CRASHED));
		now = after_the_cut(1);
		ck_assert_uint_ge(now, last); /* once new, it stays new at later cuts */
		last = now;
		if (WEXITSTATUS(status) == 0)
			break;
		restore();
	}
	ck_assert_uint_eq(last, 2);
	ck_assert_uint_gt(step, 8); /* two copies of write, fsync, rename, fsync of the directory */
}
END_TEST

/* Loop: the errno. A failure leaves a handle that knows what is on the disk: the next update works. */
static const int failures[] = { ENOSPC, EIO, EDQUOT };

START_TEST(a_failure_at_every_step)
{
	struct cmek_volhdr_store *store;
	struct cmek_volhdr *hdr;
	unsigned step;
	int ret;

	for (step = 1;; step++) {
		store = open_store(CMEK_STORE_WRITE);
		hdr = changed(store, "new");
		fault.calls = 0;
		fault.fail_at = step;
		fault.fail_with = failures[_i];
		err = (struct cmek_error)CMEK_ERROR_INIT;
		ret = cmek_volhdr_store_update(store, &hdr, v.mac_key, &err);
		fault.fail_at = 0;
		ck_assert_str_eq(cmek_volhdr_store_header(store)->label, hdr ? "unit" : "new");
		if (!ret) {
			cmek_volhdr_store_close(store);
			break;
		}
		ck_assert_int_eq(ret, -failures[_i]);
		ck_assert_int_eq(err.kind, CMEK_E_SYSTEM);
		cmek_volhdr_free(hdr);
		if (step % 2) {
			hdr = changed(store, "unit");
			ck_assert_int_eq(cmek_volhdr_store_update(store, &hdr, v.mac_key, &err), 0);
			cmek_volhdr_store_close(store);
			cmek_volhdr_store_close(open_store(CMEK_STORE_WRITE));
			ck_assert_str_eq(v.reports, "");
		} else {
			cmek_volhdr_store_close(store);
			(void)after_the_cut(1);
		}
		restore();
	}
	ck_assert_uint_gt(step, 8);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("volhdr_store");
	TCase *tcase = tcase_create("volhdr_store");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, opens);
	tcase_add_test(tcase, no_volume);
	tcase_add_test(tcase, update);
	tcase_add_loop_test(tcase, the_newer_is_picked, 0, 2);
	tcase_add_test(tcase, put_over_anything);
	tcase_add_test(tcase, claim);
	tcase_add_test(tcase, yield);
	tcase_add_loop_test(tcase, a_damaged_copy_is_survived, 0, 2);
	tcase_add_loop_test(tcase, tricks, 0, N_TRICKS * 2);
	tcase_add_test(tcase, both_damaged);
	tcase_add_test(tcase, copies_of_two_volumes);
	tcase_add_test(tcase, a_later_version_is_not_passed_over);
	tcase_add_loop_test(tcase, locking, 0, UNIT_ROWS(locks));
	tcase_add_test(tcase, the_lock_is_inherited);
	tcase_add_test(tcase, a_lock_that_is_none);
	tcase_add_test(tcase, stale);
	tcase_add_test(tcase, a_crash_at_every_step);
	tcase_add_loop_test(tcase, a_failure_at_every_step, 0, UNIT_ROWS(failures));
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
