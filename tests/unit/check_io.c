/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * base/io.h: whole reads and writes, what reading a file refuses, and that replacing one leaves the old or the new and
 * never a third thing.
 */
#include "config.h"

#include <dirent.h>
#include <limits.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/io.h"
#include "tests/unit/unit.h"

static char *dir;
static int dir_fd;

static void set_up(void)
{
	dir = unit_tmpdir();
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY);
	ck_assert_int_ge(dir_fd, 0);
}

static void tear_down(void)
{
	close(dir_fd);
	unit_rmtree(dir);
}

static void put(const char *name, const void *bytes, size_t len)
{
	int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
	close(fd);
}

static int n_entries(void)
{
	DIR *d = opendir(dir);
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

START_TEST(positioned)
{
	int fd = openat(dir_fd, "f", O_RDWR | O_CREAT, 0600);
	char buf[16];

	ck_assert_int_eq(cmek_pwrite_full(fd, "hello", 5, 3), 0);
	ck_assert_int_eq(cmek_pread_full(fd, buf, sizeof(buf), 0), 8);
	ck_assert_mem_eq(buf, "\0\0\0hello", 8);
	ck_assert_int_eq(cmek_pread_full(fd, buf, 2, 4), 2);
	ck_assert_mem_eq(buf, "el", 2);
	ck_assert_int_eq(cmek_pread_full(fd, buf, 2, 8), 0);
	ck_assert_int_eq(cmek_pread_full(fd, buf, 0, 0), 0);
	ck_assert_int_eq(cmek_pwrite_full(fd, buf, 0, 0), 0);
	ck_assert_int_eq(cmek_write_full(fd, "abc", 3), 0);
	ck_assert_int_eq(cmek_pread_full(fd, buf, 4, 0), 4);
	ck_assert_mem_eq(buf, "abch", 4);
	close(fd);
	ck_assert_int_eq(cmek_pread_full(fd, buf, 1, 0), -EBADF);
	ck_assert_int_eq(cmek_pwrite_full(fd, buf, 1, 0), -EBADF);
	ck_assert_int_eq(cmek_write_full(fd, buf, 1), -EBADF);
}
END_TEST

/* More pieces than one call takes, empty ones among them. */
START_TEST(vector)
{
	enum { N = 3000 };
	struct iovec *iov = calloc(N, sizeof(*iov));
	uint8_t *want = malloc(2 * N), *got = malloc(2 * N);
	int fd = openat(dir_fd, "f", O_RDWR | O_CREAT, 0600), i;
	size_t len = 0;

	for (i = 0; i < 2 * N; i++)
		want[i] = (uint8_t)(i * 7);
	for (i = 0; i < N; i++) {
		iov[i].iov_base = want + len;
		iov[i].iov_len = (size_t)i % 3;
		len += iov[i].iov_len;
	}
	ck_assert_int_eq(cmek_pwritev_full(fd, iov, N, 100), 0);
	ck_assert_int_eq(cmek_pread_full(fd, got, 2 * N, 100), (ssize_t)len);
	ck_assert_mem_eq(got, want, len);
	ck_assert_int_eq(cmek_pwritev_full(fd, iov, 0, 0), 0);
	close(fd);
	iov[0].iov_base = want;
	iov[0].iov_len = 1;
	ck_assert_int_eq(cmek_pwritev_full(fd, iov, 1, 0), -EBADF);
	free(iov);
	free(want);
	free(got);
}
END_TEST

/* Writes that the kernel cuts short: a limit on the file's size lets the first part through, then fails. */
static void write_to_limit(void *arg)
{
	struct rlimit limit = { 10000, 10000 };
	static uint8_t bytes[6000];
	struct iovec iov[2] = { { bytes, 6000 }, { bytes, 6000 } };
	int fd = *(int *)arg;

	signal(SIGXFSZ, SIG_IGN);
	if (setrlimit(RLIMIT_FSIZE, &limit) || cmek_pwritev_full(fd, iov, 2, 0) != -EFBIG ||
	    cmek_pwrite_full(fd, bytes, 6000, 6000) != -EFBIG || lseek(fd, 6000, SEEK_SET) != 6000 ||
	    cmek_write_full(fd, bytes, 6000) != -EFBIG || lseek(fd, 0, SEEK_END) != 10000)
		_exit(1);
}

START_TEST(cut_short)
{
	int fd = openat(dir_fd, "f", O_RDWR | O_CREAT, 0600);

	ck_assert_int_eq(unit_in_child(write_to_limit, &fd), 0);
	close(fd);
}
END_TEST

/* ---- reading ---- */

static const size_t lengths[] = { 0, 1, 4094, 4095, 4096, 4097, 8191, 8192, 100000 };

START_TEST(read_lengths)
{
	size_t len = lengths[_i], got_len = 0;
	uint8_t *bytes = malloc(len + 1), *got = NULL;
	struct cmek_error err = CMEK_ERROR_INIT;

	memset(bytes, 'b', len);
	put("f", bytes, len);
	ck_assert_int_eq(cmek_read_file(dir_fd, "f", len, &got, &got_len, &err), 0);
	ck_assert_uint_eq(got_len, len);
	ck_assert_mem_eq(got, bytes, len);
	ck_assert_uint_eq(got[len], 0);
	free(got);
	got = NULL;
	if (len > 0) {
		ck_assert_int_eq(cmek_read_file(dir_fd, "f", len - 1, &got, &got_len, &err), -EFBIG);
		ck_assert_int_eq(err.kind, CMEK_E_LIMIT);
		ck_assert_ptr_null(got);
	}
	free(bytes);
}
END_TEST

/* A file whose size says nothing. */
START_TEST(read_proc)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	uint8_t *got = NULL;
	size_t len = 0;

	ck_assert_int_eq(cmek_read_file(AT_FDCWD, "/proc/self/status", 65536, &got, &len, &err), 0);
	ck_assert_uint_gt(len, 100);
	ck_assert_ptr_nonnull(strstr((char *)got, "VmLck:"));
	free(got);
}
END_TEST

START_TEST(read_refuses)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	uint8_t *got = NULL;
	size_t len = 0;

	ck_assert_int_eq(cmek_read_file(dir_fd, "none", 10, &got, &len, &err), -ENOENT);
	ck_assert_int_eq(err.kind, CMEK_E_NOT_FOUND);
	ck_assert_str_eq(err.text, "\"none\" does not exist");
	cmek_error_clear(&err);
	put("f", "x", 1);
	ck_assert_int_eq(symlinkat("f", dir_fd, "link"), 0);
	ck_assert_int_eq(cmek_read_file(dir_fd, "link", 10, &got, &len, &err), -ELOOP);
	ck_assert_int_eq(err.kind, CMEK_E_SYSTEM);
	cmek_error_clear(&err);
	ck_assert_int_eq(cmek_read_file(dir_fd, ".", 10, &got, &len, &err), -EISDIR);
	cmek_error_clear(&err);
	ck_assert_int_eq(mkfifoat(dir_fd, "fifo", 0600), 0);
	ck_assert_int_eq(cmek_read_file(dir_fd, "fifo", 10, &got, &len, &err), -EINVAL);
	ck_assert_int_eq(err.kind, CMEK_E_USAGE);
	ck_assert_ptr_null(got);
	ck_assert_int_eq(cmek_read_file(dir_fd, "none", 10, &got, &len, NULL), -ENOENT);
}
END_TEST

/* ---- replacing ---- */

START_TEST(replace)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	uint8_t *got = NULL;
	struct stat st;
	mode_t old_umask = umask(077);
	size_t len;

	ck_assert_int_eq(cmek_replace_file(dir_fd, "f", "one", 3, 0644, &err), 0);
	ck_assert_int_eq(fstatat(dir_fd, "f", &st, 0), 0);
	ck_assert_int_eq(st.st_mode, S_IFREG | 0644);
	ck_assert_int_eq(cmek_replace_file(dir_fd, "f", "second", 6, 0600, &err), 0);
	ck_assert_int_eq(fstatat(dir_fd, "f", &st, 0), 0);
	ck_assert_int_eq(st.st_mode, S_IFREG | 0600);
	ck_assert_int_eq(cmek_read_file(dir_fd, "f", 10, &got, &len, &err), 0);
	ck_assert_str_eq((char *)got, "second");
	free(got);
	ck_assert_int_eq(cmek_replace_file(dir_fd, "empty", NULL, 0, 0600, &err), 0);
	ck_assert_int_eq(n_entries(), 2);
	umask(old_umask);
}
END_TEST

/* A symlink in the way is replaced, not followed. */
START_TEST(replace_symlink)
{
	struct stat st;

	put("target", "untouched", 9);
	ck_assert_int_eq(symlinkat("target", dir_fd, "f"), 0);
	ck_assert_int_eq(cmek_replace_file(dir_fd, "f", "new", 3, 0600, NULL), 0);
	ck_assert_int_eq(fstatat(dir_fd, "f", &st, AT_SYMLINK_NOFOLLOW), 0);
	ck_assert(S_ISREG(st.st_mode));
	ck_assert_int_eq(fstatat(dir_fd, "target", &st, 0), 0);
	ck_assert_int_eq(st.st_size, 9);
}
END_TEST

/* O_PATH descriptors, and the current directory. */
START_TEST(replace_by_other_descriptors)
{
	int path_fd = open(dir, O_PATH | O_DIRECTORY), cwd = open(".", O_PATH | O_DIRECTORY);
	struct stat st;

	ck_assert_int_eq(cmek_replace_file(path_fd, "a", "1", 1, 0600, NULL), 0);
	ck_assert_int_eq(fchdir(dir_fd), 0);
	ck_assert_int_eq(cmek_replace_file(AT_FDCWD, "b", "1", 1, 0600, NULL), 0);
	ck_assert_int_eq(fchdir(cwd), 0);
	ck_assert_int_eq(fstatat(dir_fd, "a", &st, 0), 0);
	ck_assert_int_eq(fstatat(dir_fd, "b", &st, 0), 0);
	close(path_fd);
	close(cwd);
}
END_TEST

static void replace_at_limit(void *arg)
{
	struct rlimit limit = { 4, 4 };
	struct cmek_error err = CMEK_ERROR_INIT;

	(void)arg;
	signal(SIGXFSZ, SIG_IGN);
	if (setrlimit(RLIMIT_FSIZE, &limit) || cmek_replace_file(dir_fd, "f", "too long", 8, 0600, &err) != -EFBIG ||
	    strcmp(err.text, "can't write \"f\": File too large") != 0)
		_exit(1);
}

/* What fails leaves the old file and no temporary. */
START_TEST(replace_fails)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	uint8_t *got = NULL;
	size_t len;

	ck_assert_int_eq(cmek_replace_file(dir_fd, "f", "old", 3, 0600, &err), 0);
	ck_assert_int_eq(unit_in_child(replace_at_limit, NULL), 0);
	ck_assert_int_eq(cmek_read_file(dir_fd, "f", 10, &got, &len, &err), 0);
	ck_assert_str_eq((char *)got, "old");
	free(got);
	ck_assert_int_eq(mkdirat(dir_fd, "d", 0700), 0);
	ck_assert_int_eq(cmek_replace_file(dir_fd, "d", "x", 1, 0600, &err), -EISDIR);
	ck_assert_ptr_nonnull(strstr(err.text, "can't put \"d\" in place"));
	ck_assert_int_eq(n_entries(), 2);
	cmek_error_clear(&err);
	ck_assert_int_eq(cmek_replace_file(-1, "f", "x", 1, 0600, &err), -EBADF);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("io");
	TCase *tc = tcase_create("descriptors");

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, positioned);
	tcase_add_test(tc, vector);
	tcase_add_test(tc, cut_short);
	suite_add_tcase(s, tc);
	tc = tcase_create("files");
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_loop_test(tc, read_lengths, 0, UNIT_ROWS(lengths));
	tcase_add_test(tc, read_proc);
	tcase_add_test(tc, read_refuses);
	tcase_add_test(tc, replace);
	tcase_add_test(tc, replace_symlink);
	tcase_add_test(tc, replace_by_other_descriptors);
	tcase_add_test(tc, replace_fails);
	suite_add_tcase(s, tc);
	return unit_run(s);
}
