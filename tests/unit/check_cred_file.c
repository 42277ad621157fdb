/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Files with credentials: which are taken, and which are not. */
#include "config.h"

#include <sys/stat.h>

#include "base/io.h"
#include "kms/cred_file.h"
#include "tests/unit/unit.h"

static char *dir_path, *path;
static struct cmek_error err;
static struct cmek_secret *text;

static void setup(void)
{
	memset(&err, 0, sizeof(err));
	text = NULL;
	dir_path = unit_tmpdir();
	ck_assert_int_gt(asprintf(&path, "%s/token", dir_path), 0);
}

static void teardown(void)
{
	cmek_secret_free(text);
	unit_rmtree(dir_path);
	free(path);
}

static void put(const void *data, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(cmek_write_full(fd, data, n), 0);
	ck_assert_int_eq(close(fd), 0);
}

START_TEST(a_file_is_read)
{
	put("secret\n", 7);
	ck_assert_int_eq(cmek_cred_file_read(path, 7, &text, &err), 0);
	ck_assert_uint_eq(cmek_secret_len(text), 7);
	ck_assert_str_eq((const char *)cmek_secret_bytes(text, CMEK_KEY_TEXT), "secret\n");
}
END_TEST

START_TEST(links_are_followed)
{
	char *link;

	put("x", 1);
	ck_assert_int_gt(asprintf(&link, "%s/link", dir_path), 0);
	ck_assert_int_eq(symlink("token", link), 0);
	ck_assert_int_eq(cmek_cred_file_read(link, 10, &text, &err), 0);
	free(link);
}
END_TEST

static const struct {
	const char *data;
	size_t len;
	enum cmek_kind kind;
	int err;
} bad_rows[] = {
	{ "", 0, CMEK_E_BAD_FORMAT, EINVAL },
	{ "a\0b", 3, CMEK_E_BAD_FORMAT, EINVAL },
	{ "12345678", 8, CMEK_E_LIMIT, EFBIG },
	{ NULL, 0, CMEK_E_EXPIRED, ENOENT },
};

START_TEST(other_files_are_refused)
{
	if (bad_rows[_i].data)
		put(bad_rows[_i].data, bad_rows[_i].len);
	ck_assert_int_eq(cmek_cred_file_read(path, 7, &text, &err), -bad_rows[_i].err);
	ck_assert_int_eq(err.kind, bad_rows[_i].kind);
	ck_assert_ptr_nonnull(strstr(err.text, path));
	ck_assert_ptr_null(text);
}
END_TEST

START_TEST(directories_are_refused)
{
	ck_assert_int_eq(cmek_cred_file_read(dir_path, 100, &text, &err), -EINVAL);
}
END_TEST

START_TEST(systemd_names_a_directory)
{
	char *found;

	put("x", 1);
	ck_assert_int_eq(unsetenv("CREDENTIALS_DIRECTORY"), 0);
	ck_assert_ptr_null(cmek_cred_systemd("token"));
	ck_assert_int_eq(setenv("CREDENTIALS_DIRECTORY", dir_path, 1), 0);
	ck_assert_ptr_null(cmek_cred_systemd("other"));
	found = cmek_cred_systemd("token");
	ck_assert_str_eq(found, path);
	free(found);
	ck_assert_int_eq(unsetenv("CREDENTIALS_DIRECTORY"), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cred_file");
	TCase *t = tcase_create("cred_file");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_file_is_read);
	tcase_add_test(t, links_are_followed);
	tcase_add_loop_test(t, other_files_are_refused, 0, UNIT_ROWS(bad_rows));
	tcase_add_test(t, directories_are_refused);
	tcase_add_test(t, systemd_names_a_directory);
	suite_add_tcase(s, t);
	return unit_run(s);
}
