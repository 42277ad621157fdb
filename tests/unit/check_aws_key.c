/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Names of AWS keys and endpoints of Regions. */
#include "config.h"

#include "kms/aws_key.h"
#include "tests/unit/unit.h"

static struct cmek_error err;

static const struct {
	const char *uri;
	const char *id; /* NULL: refused */
	const char *region;
	bool alias, multi_region;
} rows[] = {
	{ "aws-kms://arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
	  "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", "eu-central-1", false, false },
	{ "aws-kms:///arn:aws:kms:eu-central-1:111122223333:alias/a/b_c", "arn:aws:kms:eu-central-1:111122223333:alias/a/b_c",
	  "eu-central-1", true, false },
	{ "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-0123", "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-0123",
	  "us-gov-west-1", false, true },
	{ "aws-kms://alias/db", "alias/db", "", true, false },
	{ "aws-kms://1234abcd-12ab-34cd-56ef-1234567890ab", "1234abcd-12ab-34cd-56ef-1234567890ab", "", false, false },
	{ "aws-kms://mrk-1", "mrk-1", "", false, true },
	{ "aws-kms://", NULL, NULL, false, false },
	{ "aws-kms://alias/", NULL, NULL, false, false },
	{ "aws-kms://a b", NULL, NULL, false, false },
	{ "aws-kms://arn:aws:s3:eu-central-1:111122223333:key/1", NULL, NULL, false, false },
	{ "aws-kms://arn:aws:kms::111122223333:key/1", NULL, NULL, false, false },
	{ "aws-kms://arn:aws:kms:evil.example.com/:111122223333:key/1", NULL, NULL, false, false },
	{ "aws-kms://arn:aws:kms:eu-central-1:1111:key/1", NULL, NULL, false, false },
	{ "aws-kms://arn:aws:kms:eu-central-1:11112222333x:key/1", NULL, NULL, false, false },
	{ "aws-kms://arn:aws:kms:eu-central-1:111122223333:key/", NULL, NULL, false, false },
	{ "aws-kms://arn:aws:kms:eu-central-1:111122223333:grant/1", NULL, NULL, false, false },
	{ "aws-kms://arn:aws:kms:eu-central-1:111122223333:key/1?x=y", NULL, NULL, false, false },
	{ "aws-kms://arn:aws:kms:eu-central-1", NULL, NULL, false, false },
	{ "arn:", NULL, NULL, false, false },
};

START_TEST(names_are_taken_apart)
{
	struct cmek_aws_key key;
	char id[CMEK_AWS_ARN_MAX];

	memset(&err, 0, sizeof(err));
	if (!rows[_i].id) {
		ck_assert_msg(cmek_aws_key_parse(rows[_i].uri, &key, &err) == -EINVAL, "%s", rows[_i].uri);
		ck_assert_int_eq(err.kind, CMEK_E_USAGE);
		return;
	}
	ck_assert_msg(cmek_aws_key_parse(rows[_i].uri, &key, &err) == 0, "%s", err.text);
	cmek_aws_key_id(&key, id);
	ck_assert_str_eq(id, rows[_i].id);
	ck_assert_str_eq(key.region, rows[_i].region);
	ck_assert_int_eq(cmek_aws_key_is_alias(&key), rows[_i].alias);
	ck_assert_int_eq(cmek_aws_key_is_multi_region(&key), rows[_i].multi_region);
}
END_TEST

START_TEST(long_names_are_refused)
{
	char uri[2048] = "aws-kms://arn:aws:kms:eu-central-1:111122223333:key/";
	struct cmek_aws_key key;

	memset(uri + strlen(uri), 'a', 1000);
	ck_assert_int_eq(cmek_aws_key_parse(uri, &key, NULL), -EINVAL);
	ck_assert(!cmek_aws_region_ok("a-region-with-a-name-that-is-far-too-long-for-it"));
}
END_TEST

static const struct {
	const char *service, *region;
	bool fips, dual_stack;
	const char *url;
} endpoint_rows[] = {
	{ "kms", "eu-central-1", false, false, "https://kms.eu-central-1.amazonaws.com/" },
	{ "kms", "us-east-1", true, false, "https://kms-fips.us-east-1.amazonaws.com/" },
	{ "kms", "us-east-1", false, true, "https://kms.us-east-1.api.aws/" },
	{ "sts", "cn-north-1", false, false, "https://sts.cn-north-1.amazonaws.com.cn/" },
	{ "kms", "us-gov-west-1", true, true, "https://kms-fips.us-gov-west-1.api.aws/" },
	{ "kms", "eusc-de-east-1", false, false, "https://kms.eusc-de-east-1.amazonaws.eu/" },
};

START_TEST(endpoints)
{
	char url[128];

	ck_assert_int_eq(cmek_aws_endpoint(endpoint_rows[_i].service, endpoint_rows[_i].region, endpoint_rows[_i].fips,
					   endpoint_rows[_i].dual_stack, url, sizeof(url)),
			 0);
	ck_assert_str_eq(url, endpoint_rows[_i].url);
	ck_assert_int_eq(cmek_aws_endpoint("kms", "eu-central-1", false, false, url, 10), -ENOSPC);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("aws_key");
	TCase *t = tcase_create("aws_key");

	tcase_add_loop_test(t, names_are_taken_apart, 0, UNIT_ROWS(rows));
	tcase_add_test(t, long_names_are_refused);
	tcase_add_loop_test(t, endpoints, 0, UNIT_ROWS(endpoint_rows));
	suite_add_tcase(s, t);
	return unit_run(s);
}
