/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The AWS provider over a transport that the test writes: what is asked, and what is made of answers. */
#include "config.h"

#include "kms/aws.h"
#include "kms/session.h"
#include "tests/unit/fake_http.h"

#define ARN "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
#define OTHER "arn:aws:kms:eu-central-1:111122223333:key/ffffffff-12ab-34cd-56ef-1234567890ab"
#define KEK_B64 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

static struct fake_http fake;
static struct cmek_kms_session *session;
static struct cmek_error err;
static struct cmek_kms *kms;
static const struct cmek_kms_context ctx = { .volume = { 0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00,
							 0xc0, 0x4f, 0xd4, 0x30, 0xc8 },
					     .purpose = "data" };

static void setup(void)
{
	struct cmek_http *http = NULL;

	memset(&err, 0, sizeof(err));
	ck_assert_int_eq(setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE", 1), 0);
	ck_assert_int_eq(setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", 1), 0);
	ck_assert_int_eq(setenv("AWS_CONFIG_FILE", "/nonexistent", 1), 0);
	ck_assert_int_eq(setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent", 1), 0);
	ck_assert_int_eq(setenv("AWS_EC2_METADATA_DISABLED", "true", 1), 0);
	fake.time = 1440938160;
	ck_assert_int_eq(cmek_http_new(&fake_ops, &fake, &http, &err), 0);
	ck_assert_int_eq(cmek_kms_session_over(NULL, http, &session, &err), 0);
}

static void teardown(void)
{
	cmek_kms_close(kms);
	kms = NULL;
	cmek_kms_session_free(session);
	fake_reset(&fake);
}

static void open_key(const char *uri, const struct cmek_kms_principal *principal)
{
	const struct cmek_kms_options opts = { .session = session };

	ck_assert_msg(cmek_kms_open(uri, principal, &opts, &kms, &err) == 0, "%s", err.text);
}

static struct cmek_kms_blob blob_of(const char *resolved)
{
	static uint8_t bytes[] = "blob";

	return (struct cmek_kms_blob){ bytes, 4, (char *)resolved, (char *)"" };
}

static int unwrap(const char *resolved)
{
	struct cmek_kms_blob blob = blob_of(resolved);
	struct cmek_secret *key = NULL;
	int rc = cmek_kms_unwrap(kms, &ctx, &blob, &key, NULL, &err);

	if (rc == 0)
		ck_assert_int_eq(cmek_secret_bytes(key, CMEK_KEY_KEK)[31], 31);
	else
		ck_assert_ptr_null(key);
	cmek_secret_free(key);
	return rc;
}

START_TEST(an_unwrap_names_key_and_context)
{
	open_key(ARN, NULL);
	fake_says(&fake, 200, NULL, "{\"KeyId\":\"" ARN "\",\"Plaintext\":\"" KEK_B64 "\",\"More\":1}");
	ck_assert_msg(unwrap(ARN) == 0, "%s", err.text);
	ck_assert_str_eq(fake.urls[0], "https://kms.eu-central-1.amazonaws.com/");
	ck_assert_str_eq(fake.bodies[0], "{\"KeyId\":\"" ARN "\",\"CiphertextBlob\":\"YmxvYg==\",\"EncryptionContext\":"
					 "{\"cmekfs:volume\":\"6ba7b810-9dad-11d1-80b4-00c04fd430c8\",\"cmekfs:slot\":\"data\"}}");
	ck_assert_ptr_nonnull(strstr(fake.headers[0], "X-Amz-Target: TrentService.Decrypt\n"));
	ck_assert_ptr_nonnull(strstr(fake.headers[0], "X-Amz-Date: 20150830T123600Z\n"));
	ck_assert_ptr_nonnull(strstr(fake.headers[0], "Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/"
						      "eu-central-1/kms/aws4_request, SignedHeaders="
						      "content-type;host;x-amz-date;x-amz-target, Signature="));
}
END_TEST

START_TEST(the_key_that_wrapped_is_asked)
{
	open_key("aws-kms://arn:aws:kms:us-east-1:111122223333:alias/x", NULL);
	fake_says(&fake, 200, NULL, "{\"KeyId\":\"" ARN "\",\"Plaintext\":\"" KEK_B64 "\"}");
	ck_assert_msg(unwrap(ARN) == 0, "%s", err.text);
	ck_assert_str_eq(fake.urls[0], "https://kms.eu-central-1.amazonaws.com/");
}
END_TEST

static const struct {
	long status;
	const char *body, *second; /* second: the answer to DescribeKey, if that is asked */
	enum cmek_kind kind;
	int err;
} rows[] = {
	{ 200, "{\"KeyId\":\"" OTHER "\",\"Plaintext\":\"" KEK_B64 "\"}", NULL, CMEK_E_TAMPERED, EBADMSG },
	{ 200, "{\"KeyId\":\"" ARN "\",\"Plaintext\":\"AAEC\"}", NULL, CMEK_E_BAD_FORMAT, EINVAL },
	{ 200, "{\"KeyId\":\"" ARN "\"}", NULL, CMEK_E_BAD_FORMAT, EINVAL },
	{ 200, "{\"Plaintext\":\"" KEK_B64 "\"}", NULL, CMEK_E_BAD_FORMAT, EINVAL },
	{ 200, "", NULL, CMEK_E_BAD_FORMAT, EINVAL },
	{ 200, "<html>", NULL, CMEK_E_BAD_FORMAT, EINVAL },
	{ 400, "{\"__type\":\"DisabledException\"}", NULL, CMEK_E_KEY_DISABLED, EKEYREVOKED },
	{ 400, "{\"__type\":\"NotFoundException\"}", NULL, CMEK_E_KEY_DESTROYED, EKEYREVOKED },
	{ 404, "<html>", NULL, CMEK_E_BAD_FORMAT, EPROTO }, /* says nothing of the key */
	{ 400, "{\"__type\":\"AccessDeniedException\"}", NULL, CMEK_E_DENIED, EACCES },
	{ 400, "{\"__type\":\"InvalidCiphertextException\"}", NULL, CMEK_E_TAMPERED, EBADMSG },
	{ 400, "{\"__type\":\"KMSInvalidStateException\"}",
	  "{\"KeyMetadata\":{\"Arn\":\"" ARN "\",\"KeyState\":\"PendingDeletion\",\"DeletionDate\":1700000000}}",
	  CMEK_E_PENDING_DELETION, EKEYREVOKED },
	{ 400, "{\"__type\":\"KMSInvalidStateException\"}",
	  "{\"KeyMetadata\":{\"Arn\":\"" ARN "\",\"KeyState\":\"PendingImport\"}}", CMEK_E_KEY_DISABLED, EKEYREVOKED },
	/* Nobody has taken the key away: this must not count as disabled. */
	{ 400, "{\"__type\":\"KMSInvalidStateException\"}",
	  "{\"KeyMetadata\":{\"Arn\":\"" ARN "\",\"KeyState\":\"Unavailable\"}}", CMEK_E_UNREACHABLE, ETIMEDOUT },
};

START_TEST(answers_are_judged)
{
	open_key(ARN, NULL);
	fake_says(&fake, rows[_i].status, NULL, rows[_i].body);
	if (rows[_i].second)
		fake_says(&fake, 200, NULL, rows[_i].second);
	ck_assert_int_eq(unwrap(ARN), -rows[_i].err);
	ck_assert_msg(err.kind == rows[_i].kind, "%s: %s", cmek_kind_name(err.kind), err.text);
	ck_assert_uint_eq(fake.n_asked, fake.n_answers);
}
END_TEST

/* Nothing is claimed of the key's state. */
START_TEST(a_state_that_may_not_be_asked_for)
{
	open_key(ARN, NULL);
	fake_says(&fake, 400, NULL, "{\"__type\":\"KMSInvalidStateException\"}");
	fake_says(&fake, 400, NULL, "{\"__type\":\"AccessDeniedException\"}");
	ck_assert_int_eq(unwrap(ARN), -EACCES);
	ck_assert_int_eq(err.kind, CMEK_E_DENIED);
	ck_assert_ptr_nonnull(strstr(err.text, "KMSInvalidStateException"));
	ck_assert_ptr_nonnull(strstr(err.text, "can't be told"));
	ck_assert_uint_eq(fake.n_asked, 2);
}
END_TEST

START_TEST(a_key_in_the_making_is_waited_for)
{
	open_key(ARN, NULL);
	fake_says(&fake, 400, NULL, "{\"__type\":\"KMSInvalidStateException\"}");
	fake_says(&fake, 200, NULL, "{\"KeyMetadata\":{\"Arn\":\"" ARN "\",\"KeyState\":\"Creating\"}}");
	fake_says(&fake, 200, NULL, "{\"KeyId\":\"" ARN "\",\"Plaintext\":\"" KEK_B64 "\"}");
	ck_assert_msg(unwrap(ARN) == 0, "%s", err.text);
}
END_TEST

START_TEST(a_wrong_clock_is_corrected)
{
	open_key(ARN, NULL);
	fake_says(&fake, 400, NULL, "{\"__type\":\"InvalidSignatureException\",\"message\":\"Signature expired\"}");
	fake.answers[0].date = fake.time + 1200;
	fake_says(&fake, 200, NULL, "{\"KeyId\":\"" ARN "\",\"Plaintext\":\"" KEK_B64 "\"}");
	ck_assert_msg(unwrap(ARN) == 0, "%s", err.text);
	ck_assert_ptr_nonnull(strstr(fake.headers[0], "X-Amz-Date: 20150830T123600Z\n"));
	ck_assert_ptr_nonnull(strstr(fake.headers[1], "X-Amz-Date: 20150830T125600Z\n"));
}
END_TEST

/* With clocks that agree it is the secret that is wrong: new credentials are tried, once. */
START_TEST(a_wrong_signature_is_not_repeated)
{
	open_key(ARN, NULL);
	for (int i = 0; i < 2; i++) {
		fake_says(&fake, 400, NULL, "{\"__type\":\"InvalidSignatureException\"}");
		fake.answers[i].date = fake.time + 100;
	}
	ck_assert_int_eq(unwrap(ARN), -EKEYEXPIRED);
	ck_assert_int_eq(err.kind, CMEK_E_EXPIRED);
	ck_assert_uint_eq(fake.n_asked, 2);
}
END_TEST

START_TEST(no_credentials)
{
	ck_assert_int_eq(unsetenv("AWS_ACCESS_KEY_ID") | unsetenv("AWS_SECRET_ACCESS_KEY"), 0);
	open_key(ARN, NULL);
	ck_assert_int_eq(unwrap(ARN), -ENOKEY);
	ck_assert_int_eq(err.kind, CMEK_E_EXPIRED);
	ck_assert_uint_eq(fake.n_asked, 0);
}
END_TEST

#define ASSUMED                                                                                              \
	"<Credentials><AccessKeyId>ASIA</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>tok</SessionToken>" \
	"<Expiration>2015-08-30T13:36:00Z</Expiration></Credentials>"

START_TEST(a_role_is_assumed_once)
{
	const struct cmek_kms_principal principal = { .role = "arn:aws:iam::444455556666:role/r", .external_id = "a b" };

	open_key(ARN, &principal);
	fake_says(&fake, 200, NULL, ASSUMED);
	fake_says(&fake, 200, NULL, "{\"KeyId\":\"" ARN "\",\"Plaintext\":\"" KEK_B64 "\"}");
	fake_says(&fake, 200, NULL, "{\"KeyId\":\"" ARN "\",\"Plaintext\":\"" KEK_B64 "\"}");
	ck_assert_msg(unwrap(ARN) == 0, "%s", err.text);
	ck_assert_msg(unwrap(ARN) == 0, "%s", err.text);
	ck_assert_str_eq(fake.urls[0], "https://sts.eu-central-1.amazonaws.com/");
	ck_assert_str_eq(fake.bodies[0], "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A444455556666%3Arole%2Fr"
					 "&RoleSessionName=cmekfs&DurationSeconds=3600&ExternalId=a%20b");
	ck_assert_ptr_nonnull(strstr(fake.headers[1], "Credential=ASIA/"));
	ck_assert_ptr_nonnull(strstr(fake.headers[1], "X-Amz-Security-Token: tok\n"));
	ck_assert_uint_eq(fake.n_asked, 3);
	/* Expired: by its own date, then by AWS's word. */
	fake.time += 3600;
	fake_says(&fake, 200, NULL, ASSUMED);
	fake_says(&fake, 400, NULL, "{\"__type\":\"ExpiredTokenException\"}");
	fake_says(&fake, 200, NULL, ASSUMED);
	fake_says(&fake, 200, NULL, "{\"KeyId\":\"" ARN "\",\"Plaintext\":\"" KEK_B64 "\"}");
	ck_assert_msg(unwrap(ARN) == 0, "%s", err.text);
	ck_assert_uint_eq(fake.n_asked, 7);
}
END_TEST

START_TEST(a_wrap_pins_the_key)
{
	struct cmek_secret *kek = NULL;
	struct cmek_kms_blob blob = { 0 };
	uint8_t bytes[32];

	for (int i = 0; i < 32; i++)
		bytes[i] = (uint8_t)i;
	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_KEK, bytes, 32, &kek, &err), 0);
	open_key("aws-kms://arn:aws:kms:eu-central-1:111122223333:alias/db", NULL);
	fake_says(&fake, 200, NULL,
		  "{\"KeyMetadata\":{\"Arn\":\"" ARN "\",\"KeyState\":\"Enabled\",\"CurrentKeyMaterialId\":\"m7\"}}");
	fake_says(&fake, 200, NULL, "{\"KeyId\":\"" ARN "\",\"CiphertextBlob\":\"YmxvYg==\"}");
	ck_assert_msg(cmek_kms_wrap(kms, &ctx, kek, &blob, &err) == 0, "%s", err.text);
	ck_assert_str_eq(blob.resolved, ARN);
	ck_assert_str_eq(blob.version, "m7");
	ck_assert_uint_eq(blob.len, 4);
	ck_assert_ptr_nonnull(strstr(fake.bodies[1], "\"KeyId\":\"" ARN "\",\"Plaintext\":\"" KEK_B64 "\""));
	cmek_kms_blob_done(&blob);
	/* Without permission to describe: as it was given, and what answers is taken. */
	fake_says(&fake, 400, NULL, "{\"__type\":\"AccessDeniedException\"}");
	fake_says(&fake, 200, NULL, "{\"KeyId\":\"" ARN "\",\"CiphertextBlob\":\"YmxvYg==\"}");
	ck_assert_msg(cmek_kms_wrap(kms, &ctx, kek, &blob, &err) == 0, "%s", err.text);
	ck_assert_str_eq(blob.resolved, ARN);
	ck_assert_str_eq(blob.version, "");
	cmek_kms_blob_done(&blob);
	cmek_secret_free(kek);
}
END_TEST

START_TEST(a_rewrap_stays_in_the_kms)
{
	struct cmek_kms_blob old = blob_of(ARN), blob = { 0 };

	open_key(OTHER, NULL);
	fake_says(&fake, 400, NULL, "{\"__type\":\"AccessDeniedException\"}");
	fake_says(&fake, 200, NULL, "{\"KeyId\":\"" OTHER "\",\"SourceKeyId\":\"" ARN "\",\"CiphertextBlob\":\"bmV3\","
				    "\"DestinationKeyMaterialId\":\"m8\"}");
	ck_assert_msg(cmek_kms_rewrap(kms, &ctx, &old, &blob, &err) == 0, "%s", err.text);
	ck_assert_str_eq(blob.resolved, OTHER);
	ck_assert_str_eq(blob.version, "m8");
	ck_assert_ptr_nonnull(strstr(fake.headers[1], "TrentService.ReEncrypt\n"));
	ck_assert_ptr_nonnull(strstr(fake.bodies[1], "\"SourceKeyId\":\"" ARN "\""));
	cmek_kms_blob_done(&blob);
}
END_TEST

START_TEST(no_region)
{
	ck_assert_int_eq(unsetenv("AWS_REGION") | unsetenv("AWS_DEFAULT_REGION"), 0);
	open_key("aws-kms://alias/db", NULL);
	ck_assert_int_eq(unwrap(NULL), -EINVAL);
	ck_assert_int_eq(err.kind, CMEK_E_USAGE);
}
END_TEST

START_TEST(days_are_checked)
{
	open_key(ARN, NULL);
	ck_assert_int_eq(cmek_kms_schedule_deletion(kms, 6, NULL, &err), -EINVAL);
	cmek_error_clear(&err);
	ck_assert_int_eq(cmek_kms_schedule_deletion(kms, 31, NULL, &err), -EINVAL);
	ck_assert_uint_eq(fake.n_asked, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("aws");
	TCase *t = tcase_create("aws");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, an_unwrap_names_key_and_context);
	tcase_add_test(t, the_key_that_wrapped_is_asked);
	tcase_add_loop_test(t, answers_are_judged, 0, UNIT_ROWS(rows));
	tcase_add_test(t, a_state_that_may_not_be_asked_for);
	tcase_add_test(t, a_key_in_the_making_is_waited_for);
	tcase_add_test(t, a_wrong_clock_is_corrected);
	tcase_add_test(t, a_wrong_signature_is_not_repeated);
	tcase_add_test(t, no_credentials);
	tcase_add_test(t, a_role_is_assumed_once);
	tcase_add_test(t, a_wrap_pins_the_key);
	tcase_add_test(t, a_rewrap_stays_in_the_kms);
	tcase_add_test(t, no_region);
	tcase_add_test(t, days_are_checked);
	suite_add_tcase(s, t);
	return unit_run(s);
}
