/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The configuration file: what is taken, what is refused and where, and what a provider reads from it. */
#include "config.h"

#include <sys/stat.h>

#include "base/conf.h"
#include "base/io.h"
#include "kms/session.h"
#include "tests/unit/unit.h"

static char *dir_path, *path;
static struct cmek_error err;
static struct cmek_conf *conf;

static void setup(void)
{
	memset(&err, 0, sizeof(err));
	conf = NULL;
	dir_path = unit_tmpdir();
	ck_assert_int_gt(asprintf(&path, "%s/cmekfs.conf", dir_path), 0);
}

static void teardown(void)
{
	cmek_conf_free(conf);
	unit_rmtree(dir_path);
	free(path);
}

static void put(const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(cmek_write_full(fd, text, strlen(text)), 0);
	ck_assert_int_eq(fchmod(fd, mode), 0);
	ck_assert_int_eq(close(fd), 0);
}

static const char all_forms[] = "; a comment\n"
				"[kms]\n"
				"connect_timeout = 3s\n"
				"deadline=1m\n"
				"\n"
				"# another\n"
				"[aws]\r\n"
				"  region = eu-central-1   ; behind\r\n"
				"fips: yes\n"
				"attempts = 7\n"
				"[aws prod]\n"
				"region = us-east-1\n"
				"proxy = none\n"
				"[gcp]\t# behind\n"
				"[volume db.1]\n"
				"store = /srv/db.store\n"
				"key = aws-kms://arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab\n"
				"[volume other]";

START_TEST(values_are_read)
{
	uint64_t n = 99;
	bool b = false;

	put(all_forms, 0644);
	ck_assert_msg(cmek_conf_load(path, &conf, &err) == 0, "%s", err.text);
	ck_assert(cmek_conf_duration(conf, "kms", NULL, "deadline", &n));
	ck_assert_uint_eq(n, 60);
	ck_assert_str_eq(cmek_conf_text(conf, "aws", NULL, "region"), "eu-central-1");
	ck_assert_str_eq(cmek_conf_text(conf, "aws", "prod", "region"), "us-east-1");
	ck_assert_ptr_null(cmek_conf_text(conf, "aws", "other", "region"));
	ck_assert_ptr_null(cmek_conf_text(conf, "gcp", NULL, "region"));
	ck_assert(cmek_conf_bool(conf, "aws", NULL, "fips", &b));
	ck_assert(b);
	ck_assert(cmek_conf_number(conf, "aws", NULL, "attempts", &n));
	ck_assert_uint_eq(n, 7);
	ck_assert(!cmek_conf_number(conf, "aws", "prod", "attempts", &n));
	ck_assert_str_eq(cmek_conf_name(conf, "volume", 0), "db.1");
	ck_assert_str_eq(cmek_conf_name(conf, "volume", 1), "other");
	ck_assert_ptr_null(cmek_conf_name(conf, "volume", 2));
	ck_assert_ptr_null(cmek_conf_name(conf, "gcp", 0));
	ck_assert_ptr_null(cmek_conf_text(NULL, "aws", NULL, "region"));
}
END_TEST

START_TEST(providers_find_theirs)
{
	struct cmek_kms_session *session = NULL;
	struct cmek_http_settings settings;

	put(all_forms, 0600);
	ck_assert_int_eq(cmek_kms_session_new(path, &session, &err), 0);
	ck_assert_str_eq(cmek_kms_session_text(session, "aws", NULL, "region"), "eu-central-1");
	ck_assert_str_eq(cmek_kms_session_text(session, "aws", "prod", "region"), "us-east-1");
	ck_assert(cmek_kms_session_bool(session, "aws", "prod", "fips"));
	ck_assert(!cmek_kms_session_bool(session, "aws", NULL, "dual_stack"));
	settings = cmek_kms_session_settings(session, "aws", "prod");
	ck_assert_uint_eq(settings.attempts, 7);
	ck_assert_uint_eq(settings.connect_timeout_ms, 3000);
	ck_assert_str_eq(settings.proxy, "");
	ck_assert_ptr_null(cmek_kms_session_settings(session, "gcp", NULL).proxy);
	ck_assert_uint_eq(cmek_kms_session_deadline_ms(session, "gcp", NULL, 0), 60000);
	ck_assert_uint_eq(cmek_kms_session_deadline_ms(session, "gcp", NULL, 5), 5);
	ck_assert_int_eq(cmek_kms_session_check_profile(session, "prod", &err), 0);
	ck_assert_int_eq(cmek_kms_session_check_profile(session, NULL, &err), 0);
	ck_assert_int_eq(cmek_kms_session_check_profile(session, "nobody", &err), -EINVAL);
	cmek_kms_session_free(session);
}
END_TEST

/* 200 bytes are inih's line. */
#define TEN "0123456789"
#define FIFTY TEN TEN TEN TEN TEN

static const struct {
	const char *text;
	const char *where; /* behind "PATH:" */
} bad_rows[] = {
	{ "[aws]\nregion = a\nregoin = b\n", "3: \"regoin\" is not a key" },
	{ "[aws]\nRegion = a\n", "2: \"Region\" is not a key" },
	{ "[gcp]\nregion = a\n", "2: \"region\" is not a key" },
	{ "\n\n[azure]\n", "3: \"azure\" is not a section" },
	{ "[aws ]\n", "1: \"\" is not a name" },
	{ "[aws a b]\n", "1: \"a b\" is not a name" },
	{ "[kms x]\n", "1: \"kms x\" takes no name" },
	{ "[volume]\n", "1: \"volume\" needs a name" },
	{ "[aws\nregion = a\n", "1: \"[aws\" has no closing bracket" },
	{ "[aws] region = a\n", "1: \"region = a\" stands behind" },
	{ "[aws]]\n", "1: \"]\" stands behind" },
	{ "[aws]\n\f[kms]\nregion = a\n", "3: \"region\" is not a key" },
	{ "[aws]\n\v[kms]\nregion = a\n", "3: \"region\" is not a key" },
	{ "region = a\n[aws]\n", "1: \"region\" stands before" },
	{ "[aws]\nregion = a\nregion = b\n", "3: \"region\" is set twice" },
	{ "[aws]\n[gcp]\n[aws]\n", "3: \"aws\" is there twice" },
	{ "[aws]\nregion\n", "2: neither" },
	{ "[aws]\nregion =\n", "2: \"region\" needs a value" },
	{ "[aws]\nca_file = ca.pem\n", "2: \"ca_file\" needs an absolute path" },
	{ "[aws]\nendpoint = kms.test\n", "2: \"endpoint\" needs an http(s) URL" },
	{ "[aws]\nattempts = 0\n", "2: \"attempts\" needs a number from 1 to 20" },
	{ "[aws]\nattempts = many\n", "2: \"attempts\" needs a number" },
	{ "[aws]\ndeadline = 2h\n", "2: \"deadline\" needs a time from 1 to 3600 seconds" },
	{ "[aws]\nfips = maybe\n", "2: \"fips\" needs yes or no" },
	{ "[volume a]\nuuid = 12\n", "2: \"uuid\" is not a key" },
	{ "[aws]\nregion = " FIFTY FIFTY FIFTY FIFTY "\n", "2: \"region = 0123456789012345678901234567890\" begins a line" },
};

START_TEST(mistakes_are_told_with_their_line)
{
	char *want;

	put(bad_rows[_i].text, 0600);
	ck_assert_int_eq(cmek_conf_load(path, &conf, &err), -EINVAL);
	ck_assert_int_eq(err.kind, CMEK_E_USAGE);
	ck_assert_int_gt(asprintf(&want, "%s:%s", path, bad_rows[_i].where), 0);
	ck_assert_msg(strncmp(err.text, want, strlen(want)) == 0, "%s, not %s", err.text, want);
	ck_assert_ptr_null(conf);
	free(want);
}
END_TEST

START_TEST(files_that_others_can_write_are_refused)
{
	put("[aws]\n", 0664);
	ck_assert_int_eq(cmek_conf_load(path, &conf, &err), -EPERM);
	ck_assert_int_eq(err.kind, CMEK_E_DENIED);
}
END_TEST

START_TEST(a_missing_file_is_told)
{
	ck_assert_int_eq(cmek_conf_load(path, &conf, &err), -ENOENT);
	ck_assert_int_eq(err.kind, CMEK_E_NOT_FOUND);
	cmek_error_clear(&err);
	ck_assert_int_eq(cmek_conf_load(dir_path, &conf, &err), -EINVAL);
}
END_TEST

START_TEST(an_empty_file_sets_nothing)
{
	put("", 0600);
	ck_assert_int_eq(cmek_conf_load(path, &conf, &err), 0);
	ck_assert_ptr_null(cmek_conf_text(conf, "aws", NULL, "region"));
}
END_TEST

START_TEST(dev_null_is_an_empty_file)
{
	setenv("CMEKFS_CONFIG", "/dev/null", 1);
	ck_assert_msg(cmek_conf_load(NULL, &conf, &err) == 0, "%s", err.text);
	ck_assert_ptr_null(cmek_conf_text(conf, "aws", NULL, "region"));
	unsetenv("CMEKFS_CONFIG");
	/* Other devices are none. */
	ck_assert_int_eq(cmek_conf_load("/dev/zero", &conf, &err), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("conf");
	TCase *t = tcase_create("conf");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, values_are_read);
	tcase_add_test(t, providers_find_theirs);
	tcase_add_loop_test(t, mistakes_are_told_with_their_line, 0, UNIT_ROWS(bad_rows));
	tcase_add_test(t, files_that_others_can_write_are_refused);
	tcase_add_test(t, a_missing_file_is_told);
	tcase_add_test(t, an_empty_file_sets_nothing);
	tcase_add_test(t, dev_null_is_an_empty_file);
	suite_add_tcase(s, t);
	return unit_run(s);
}
