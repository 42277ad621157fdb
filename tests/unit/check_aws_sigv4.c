/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Signature Version 4. The first vectors are of the official suite (awslabs/aws-c-auth, tests/aws-signing-test-suite/v4);
 * those of the service kms were computed with botocore 1.29.27.
 */
#include "config.h"

#include "kms/aws_sigv4.h"
#include "tests/unit/unit.h"

static struct cmek_error err;

#define HOST { "host", "example.amazonaws.com" }
#define DATE { "x-amz-date", "20150830T123600Z" }
#define KMS_TARGET { "x-amz-target", "TrentService.GenerateDataKey" }
#define KMS_BODY                                                                                          \
	"{\"KeyId\":\"arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab\","     \
	"\"KeySpec\":\"AES_256\",\"EncryptionContext\":{\"vol\":\"v1\"}}"

static const struct {
	const char *name, *method, *service;
	struct cmek_sigv4_header headers[6];
	const char *body, *names, *signature;
} rows[] = {
	{ "post-vanilla", "POST", "service", { HOST, DATE }, "", "host;x-amz-date",
	  "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b" },
	{ "get-vanilla-with-session-token", "GET", "service",
	  { HOST, DATE,
	    { "x-amz-security-token", "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267" } },
	  "", "host;x-amz-date;x-amz-security-token",
	  "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8" },
	{ "post-x-www-form-urlencoded", "POST", "service",
	  { { "content-length", "13" },
	    { "content-type", "application/x-www-form-urlencoded" },
	    HOST,
	    { "x-amz-content-sha256", "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e" },
	    DATE },
	  "Param1=value1", "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
	  "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b" },
	{ "kms", "POST", "kms",
	  { { "content-type", "application/x-amz-json-1.1" }, { "host", "kms.us-east-1.amazonaws.com" }, DATE, KMS_TARGET },
	  KMS_BODY, "content-type;host;x-amz-date;x-amz-target",
	  "964e69aafc1f1137104f4219502e853a91a11f1e67101c3860be6f5ad8918c01" },
	{ "kms with a session token", "POST", "kms",
	  { { "content-type", "application/x-amz-json-1.1" },
	    { "host", "kms.us-east-1.amazonaws.com" },
	    DATE,
	    { "x-amz-security-token", "EXAMPLETOKEN==" },
	    KMS_TARGET },
	  KMS_BODY, "content-type;host;x-amz-date;x-amz-security-token;x-amz-target",
	  "49184025fe63f3965c69fa92727d556ab0c9f8f1ef398224efa535e50b6cdbd2" },
	{ "kms with a length", "POST", "kms",
	  { { "content-length", "140" },
	    { "content-type", "application/x-amz-json-1.1" },
	    { "host", "kms.us-east-1.amazonaws.com" },
	    DATE,
	    KMS_TARGET },
	  KMS_BODY, "content-length;content-type;host;x-amz-date;x-amz-target",
	  "9a50bc30fc7064bbc56cc109f88ae06b2643db758ab2c9f0f2e339217ea40786" },
};

static struct cmek_sigv4_request request_of(int i, struct cmek_secret **ret_key)
{
	static const char secret_key[] = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
	struct cmek_sigv4_request req = { .method = rows[i].method, .path = "/", .query = "", .headers = rows[i].headers,
					  .body = rows[i].body, .body_len = strlen(rows[i].body), .region = "us-east-1",
					  .service = rows[i].service, .date = "20150830T123600Z",
					  .access_key = "AKIDEXAMPLE" };

	while (rows[i].headers[req.n_headers].name)
		req.n_headers++;
	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_TEXT, secret_key, strlen(secret_key), ret_key, &err), 0);
	req.secret_key = *ret_key;
	return req;
}

START_TEST(vectors)
{
	char want[CMEK_SIGV4_AUTHORIZATION_MAX], got[CMEK_SIGV4_AUTHORIZATION_MAX];
	struct cmek_secret *key = NULL;
	struct cmek_sigv4_request req = request_of(_i, &key);

	snprintf(want, sizeof(want),
		 "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/%s/aws4_request, SignedHeaders=%s, Signature=%s",
		 rows[_i].service, rows[_i].names, rows[_i].signature);
	ck_assert_int_eq(cmek_sigv4_authorization(&req, got, sizeof(got), &err), 0);
	ck_assert_msg(strcmp(want, got) == 0, "%s: %s", rows[_i].name, got);
	cmek_secret_free(key);
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
	char out[CMEK_SIGV4_AUTHORIZATION_MAX];
	struct cmek_secret *key = NULL;
	struct cmek_sigv4_request req = request_of(0, &key);

	ck_assert_int_eq(cmek_sigv4_authorization(&req, out, 100, &err), -ENOSPC);
	memset(&err, 0, sizeof(err));
	req.date = "2015";
	ck_assert_int_eq(cmek_sigv4_authorization(&req, out, sizeof(out), &err), -EINVAL);
	cmek_secret_free(key);
}
END_TEST

START_TEST(dates)
{
	char text[CMEK_SIGV4_DATE_LEN];

	cmek_sigv4_date(1440938160, text);
	ck_assert_str_eq(text, "20150830T123600Z");
	cmek_sigv4_date(INT64_MAX, text);
	ck_assert_str_eq(text, "19700101T000000Z");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("aws_sigv4");
	TCase *t = tcase_create("aws_sigv4");

	tcase_add_loop_test(t, vectors, 0, UNIT_ROWS(rows));
	tcase_add_test(t, what_does_not_fit_is_refused);
	tcase_add_test(t, dates);
	suite_add_tcase(s, t);
	return unit_run(s);
}
