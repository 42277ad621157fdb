/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The files that AWS's tools share: where a value is found, and where none is. */
#include "config.h"

#include <sys/stat.h>

#include "kms/aws_profile.h"
#include "tests/unit/unit.h"

static const char text[] = "# comment\n"
			   "; another\n"
			   "outside = 1\n"
			   "[default]\n"
			   "region = eu-central-1\n"
			   "spaced   =   a b  c  \r\n"
			   "comment = value # behind\n"
			   "semi = value ; behind\n"
			   "hash = val#ue\n"
			   "empty =\n"
			   "no_equals\n"
			   "[profile  work ]\n"
			   "region=us-east-1\n"
			   "services = alt\n"
			   "s3 =\n"
			   "  max = 20\n"
			   "  region = not-this\n"
			   "[services alt]\n"
			   "kms = \n"
			   "  endpoint_url = https://kms.example/\n"
			   "sts =\n"
			   "\tendpoint_url = https://sts.example/\n"
			   "[profile workshop]\n"
			   "region = other\n"
			   "[unclosed\n"
			   "region = x\n"
			   "[last]\n"
			   "region = end";

static const struct {
	const char *section, *parent, *key, *value; /* value NULL: not found */
} rows[] = {
	{ "default", NULL, "region", "eu-central-1" },
	{ "default", NULL, "spaced", "a b  c" },
	{ "default", NULL, "comment", "value" },
	{ "default", NULL, "semi", "value" },
	{ "default", NULL, "hash", "val#ue" },
	{ "default", NULL, "empty", NULL },
	{ "default", NULL, "no_equals", NULL },
	{ "default", NULL, "outside", NULL },
	{ "default", NULL, "Region", NULL },
	{ "profile work", NULL, "region", "us-east-1" },
	{ "profile work", NULL, "max", NULL },
	{ "profile work", "s3", "max", "20" },
	{ "profile work", "s3", "services", NULL },
	{ "profile wor", NULL, "region", NULL },
	{ "profile workshop", NULL, "region", "other" },
	{ "profilework", NULL, "region", NULL },
	{ "services alt", "kms", "endpoint_url", "https://kms.example/" },
	{ "services alt", "sts", "endpoint_url", "https://sts.example/" },
	{ "services alt", NULL, "endpoint_url", NULL },
	{ "unclosed", NULL, "region", NULL },
	{ "last", NULL, "region", "end" },
	{ "", NULL, "outside", NULL },
};

START_TEST(values_are_found)
{
	struct cmek_aws_value v = cmek_aws_ini_find(text, rows[_i].section, rows[_i].parent, rows[_i].key);
	char copy[64];

	if (!rows[_i].value) {
		ck_assert_msg(v.text == NULL, "[%s] %s: %.*s", rows[_i].section, rows[_i].key, (int)v.len, v.text);
		return;
	}
	ck_assert(cmek_aws_value_copy(v, copy, sizeof(copy)));
	ck_assert_str_eq(copy, rows[_i].value);
	ck_assert(!cmek_aws_value_copy(v, copy, v.len));
}
END_TEST

static char *dir_path;
static struct cmek_error err;

static char *put(const char *name, const char *content)
{
	char *path;
	FILE *f;

	ck_assert_int_gt(asprintf(&path, "%s/%s", dir_path, name), 0);
	f = fopen(path, "we");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_ge(fputs(content, f), 0);
	ck_assert_int_eq(fclose(f), 0);
	ck_assert_int_eq(chmod(path, 0600), 0);
	return path;
}

START_TEST(files_are_joined)
{
	struct cmek_aws_profiles files;
	char *config, *credentials, copy[64];

	dir_path = unit_tmpdir();
	config = put("config", text);
	credentials = put("credentials", "[work]\naws_access_key_id = AKID\n[only]\naws_access_key_id = B\n");
	ck_assert_int_eq(cmek_aws_profiles_load(config, credentials, &files, &err), 0);
	ck_assert(cmek_aws_profile_exists(&files, "default"));
	ck_assert(cmek_aws_profile_exists(&files, "work"));
	ck_assert(cmek_aws_profile_exists(&files, "only"));
	ck_assert(!cmek_aws_profile_exists(&files, "last")); /* the config calls its own "profile last" */
	ck_assert(cmek_aws_value_copy(cmek_aws_profile_value(&files, "work", "aws_access_key_id"), copy, sizeof(copy)));
	ck_assert_str_eq(copy, "AKID");
	ck_assert(cmek_aws_value_copy(cmek_aws_profile_value(&files, "work", "region"), copy, sizeof(copy)));
	ck_assert_str_eq(copy, "us-east-1");
	ck_assert(cmek_aws_value_copy(cmek_aws_profile_endpoint(&files, "work", "kms"), copy, sizeof(copy)));
	ck_assert_str_eq(copy, "https://kms.example/");
	ck_assert_ptr_null(cmek_aws_profile_endpoint(&files, "default", "kms").text);
	cmek_aws_profiles_done(&files);
	ck_assert_int_eq(unlink(config), 0);
	ck_assert_int_eq(cmek_aws_profiles_load(config, credentials, &files, &err), -ENOENT); /* it was given */
	ck_assert_int_eq(setenv("AWS_CONFIG_FILE", config, 1), 0);
	ck_assert_int_eq(setenv("AWS_SHARED_CREDENTIALS_FILE", config, 1), 0);
	ck_assert_int_eq(cmek_aws_profiles_load(NULL, NULL, &files, NULL), 0);
	ck_assert(!cmek_aws_profile_exists(&files, "default"));
	cmek_aws_profiles_done(&files);
	free(config);
	free(credentials);
	unit_rmtree(dir_path);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("aws_profile");
	TCase *t = tcase_create("aws_profile");

	tcase_add_loop_test(t, values_are_found, 0, UNIT_ROWS(rows));
	tcase_add_test(t, files_are_joined);
	suite_add_tcase(s, t);
	return unit_run(s);
}
