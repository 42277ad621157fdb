/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The front of the KMS layer: which URIs are whose, argument checks, what is left when a call fails. */
#include "config.h"

#include "kms/kms_uri.h"
#include "tests/unit/local_fixture.h"

static const struct {
	const char *uri;
	enum cmek_kms_service service;
	enum cmek_kind kind; /* of opening it; NONE = opens */
} uri_rows[] = {
	{ "local:db", CMEK_KMS_SERVICE_LOCAL, CMEK_E_NONE },
	{ "local:", CMEK_KMS_SERVICE_LOCAL, CMEK_E_NONE },
	{ "local:a.b-c_D9", CMEK_KMS_SERVICE_LOCAL, CMEK_E_NONE },
	{ "local:.db", CMEK_KMS_SERVICE_LOCAL, CMEK_E_USAGE },
	{ "local:-db", CMEK_KMS_SERVICE_LOCAL, CMEK_E_USAGE },
	{ "local:a b", CMEK_KMS_SERVICE_LOCAL, CMEK_E_USAGE },
	{ "local:../x", CMEK_KMS_SERVICE_LOCAL, CMEK_E_USAGE },
	{ "local:a/b", CMEK_KMS_SERVICE_LOCAL, CMEK_E_USAGE },
	{ "local:\xc3\xa4", CMEK_KMS_SERVICE_LOCAL, CMEK_E_USAGE },
	{ "local:0123456789012345678901234567890123456789012345678901234567890123", CMEK_KMS_SERVICE_LOCAL,
	  CMEK_E_NONE },
	{ "local:01234567890123456789012345678901234567890123456789012345678901234", CMEK_KMS_SERVICE_LOCAL,
	  CMEK_E_USAGE },
	{ "aws-kms://arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
	  CMEK_KMS_SERVICE_AWS, CMEK_E_NONE },
	{ "arn:aws:kms:eu-central-1:111122223333:key/mrk-1", CMEK_KMS_SERVICE_AWS, CMEK_E_NONE },
	{ "arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/x", CMEK_KMS_SERVICE_AWS, CMEK_E_NONE },
	{ "aws-kms://alias/x", CMEK_KMS_SERVICE_AWS, CMEK_E_NONE },
	{ "aws-kms://", CMEK_KMS_SERVICE_AWS, CMEK_E_USAGE },
	{ "arn:aws:s3:::bucket", CMEK_KMS_SERVICE_NONE, CMEK_E_USAGE },
	{ "gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k", CMEK_KMS_SERVICE_GCP, CMEK_E_NONE },
	{ "projects/p/locations/l/keyRings/r/cryptoKeys/k", CMEK_KMS_SERVICE_GCP, CMEK_E_NONE },
	{ "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1", CMEK_KMS_SERVICE_GCP,
	  CMEK_E_USAGE },
	{ "projects/p/secrets/s", CMEK_KMS_SERVICE_NONE, CMEK_E_USAGE },
	{ "crn:v1:bluemix:public:kms:us-south:a/0123:abcd:key:ef01", CMEK_KMS_SERVICE_IBM, CMEK_E_USAGE },
	{ "crn:v1:bluemix:public:kms:us-south:a/0123:8e19aaff-df40-4623-bef2-86cb19a9d8bd:key:"
	  "2fe79d14-7f5d-4bae-b0e6-4a5c5b1a8d7b", CMEK_KMS_SERVICE_IBM, CMEK_E_NONE },
	{ "crn:v1:bluemix:public:hs-crypto:us-south:a/0123:abcd:key:ef01", CMEK_KMS_SERVICE_NONE, CMEK_E_USAGE },
	{ "db", CMEK_KMS_SERVICE_NONE, CMEK_E_USAGE },
	{ "", CMEK_KMS_SERVICE_NONE, CMEK_E_USAGE },
	{ "LOCAL:db", CMEK_KMS_SERVICE_NONE, CMEK_E_USAGE },
	{ "/etc/passwd", CMEK_KMS_SERVICE_NONE, CMEK_E_USAGE },
};

START_TEST(uris_are_told_apart)
{
	const struct cmek_kms_options opts = { .keystore_path = store_path };
	struct cmek_kms *kms = NULL;
	int rc;

	ck_assert_int_eq(cmek_kms_uri_service(uri_rows[_i].uri), uri_rows[_i].service);
	rc = cmek_kms_open(uri_rows[_i].uri, NULL, &opts, &kms, &err);
	ck_assert_msg(err.kind == uri_rows[_i].kind, "%s: kind %s: %s", uri_rows[_i].uri, cmek_kind_name(err.kind),
		      err.text);
	ck_assert_int_eq(rc, -err.err);
	if (err.kind == CMEK_E_UNSUPPORTED)
		ck_assert_ptr_nonnull(strstr(err.text, cmek_kms_service_title(uri_rows[_i].service)));
	cmek_kms_close(kms);
}
END_TEST

START_TEST(a_long_uri_is_refused)
{
	char *uri = calloc(1, 5000);
	struct cmek_kms *kms = NULL;

	memcpy(uri, "local:", 6);
	memset(uri + 6, 'a', 4990);
	ck_fails(cmek_kms_open(uri, NULL, NULL, &kms, &err), CMEK_E_USAGE);
	ck_assert_ptr_null(kms);
	free(uri);
}
END_TEST

static const char *const bad_purposes[] = { NULL, "", "Data", "da ta", "d\xc3\xa4ta", "a/b",
					    "012345678901234567890123456789012" };

START_TEST(purposes_are_checked)
{
	struct cmek_kms *kms = created("local:db");
	struct cmek_kms_context bad = ctx;
	struct cmek_secret *kek = new_kek(), *back = NULL;
	struct cmek_kms_blob blob = { 0 }, untouched = { 0 };

	ck_ok(cmek_kms_wrap(kms, &ctx, kek, &blob, &err));
	bad.purpose = bad_purposes[_i];
	ck_fails(cmek_kms_wrap(kms, &bad, kek, &untouched, &err), CMEK_E_USAGE);
	ck_fails(cmek_kms_unwrap(kms, &bad, &blob, &back, NULL, &err), CMEK_E_USAGE);
	ck_fails(cmek_kms_rewrap(kms, &bad, &blob, &untouched, &err), CMEK_E_USAGE);
	ck_assert_ptr_null(untouched.data);
	ck_assert_ptr_null(back);
	cmek_kms_blob_done(&blob);
	cmek_secret_free(kek);
	cmek_kms_close(kms);
}
END_TEST

START_TEST(keys_and_blobs_are_checked)
{
	struct cmek_kms *kms = created("local:db");
	struct cmek_secret *small = NULL, *back = NULL;
	struct cmek_kms_blob blob = { 0 }, large = { .len = 1 << 20 };

	ck_ok(cmek_secret_new_random(CMEK_KEY_KEK, 16, &small, &err));
	ck_fails(cmek_kms_wrap(kms, &ctx, small, &blob, &err), CMEK_E_USAGE);
	ck_fails(cmek_kms_unwrap(kms, &ctx, &blob, &back, NULL, &err), CMEK_E_BAD_FORMAT);
	large.data = calloc(1, large.len);
	ck_fails(cmek_kms_unwrap(kms, &ctx, &large, &back, NULL, &err), CMEK_E_BAD_FORMAT);
	ck_fails(cmek_kms_rewrap(kms, &ctx, &large, &blob, &err), CMEK_E_BAD_FORMAT);
	free(large.data);
	cmek_secret_free(small);
	cmek_kms_close(kms);
}
END_TEST

/* What was told of operations: "wrap ok 1, unwrap tampered 1, ..." with the version. */
static void add_call(void *arg, const struct cmek_kms_call *call)
{
	char *all = arg;
	size_t n = strlen(all);

	ck_assert_str_eq(call->provider, "local");
	ck_assert_str_eq(call->key, "local:db");
	ck_assert_uint_eq(call->n_requests, 0);
	if (call->volume)
		ck_assert_str_eq(call->purpose, "data");
	snprintf(all + n, 1024 - n, "%s%s %s %s", n ? ", " : "", call->operation,
		 cmek_error_is_set(call->failure) ? cmek_kind_name(call->failure->kind) : "ok", call->version);
}

static void ck_told(char *all, const char *want)
{
	ck_assert_str_eq(all, want);
	all[0] = '\0';
}

START_TEST(each_operation_is_told)
{
	char all[1024] = "";
	const struct cmek_kms_options opts = { .called = add_call, .called_arg = all };
	struct cmek_kms *kms = open_with("local:db", &opts);
	struct cmek_kms_blob blob = { 0 }, fresh = { 0 };
	struct cmek_secret *kek = new_kek(), *back = NULL;
	struct cmek_kms_context bad = { .purpose = "Data" };
	struct cmek_kms_registration *regs = NULL;
	struct cmek_kms_info info = { 0 };
	size_t n;

	ck_assert_int_eq(cmek_kms_wrap(kms, &ctx, kek, &blob, NULL), -ENOKEY); /* told also to who ignores the error */
	ck_told(all, "wrap not-found ");
	ck_ok(cmek_kms_create(kms, NULL, &err));
	ck_ok(cmek_kms_wrap(kms, &ctx, kek, &blob, &err));
	ck_ok(cmek_kms_rotate(kms, NULL, &err));
	ck_told(all, "create ok , wrap ok 1, rotate ok 2");
	/* Two operations, as the service has them. */
	ck_ok(cmek_kms_rewrap(kms, &ctx, &blob, &fresh, &err));
	ck_told(all, "unwrap ok 1, wrap ok 2");
	blob.data[blob.len - 1] ^= 1;
	ck_fails(cmek_kms_unwrap(kms, &ctx, &blob, &back, NULL, &err), CMEK_E_TAMPERED);
	ck_told(all, "unwrap tampered 1");
	ck_ok(cmek_kms_describe(kms, &info, &err));
	ck_ok(cmek_kms_disable(kms, &err));
	ck_fails(cmek_kms_unwrap(kms, &ctx, &fresh, &back, NULL, &err), CMEK_E_KEY_DISABLED);
	ck_ok(cmek_kms_enable(kms, &err));
	ck_ok(cmek_kms_schedule_deletion(kms, 3, NULL, &err));
	ck_ok(cmek_kms_cancel_deletion(kms, &err));
	ck_told(all, "describe ok , disable ok , unwrap key-disabled 2, enable ok , schedule-deletion ok , cancel-deletion ok ");
	/* Nobody was asked. */
	ck_fails(cmek_kms_registrations(kms, &regs, &n, &err), CMEK_E_UNSUPPORTED);
	ck_fails(cmek_kms_schedule_deletion(kms, 3000, NULL, &err), CMEK_E_USAGE);
	ck_fails(cmek_kms_wrap(kms, &bad, kek, &blob, &err), CMEK_E_USAGE);
	ck_told(all, "");
	cmek_kms_info_done(&info);
	cmek_kms_blob_done(&blob);
	cmek_kms_blob_done(&fresh);
	cmek_secret_free(kek);
	cmek_kms_close(kms);
}
END_TEST

START_TEST(errors_may_be_ignored)
{
	struct cmek_kms *kms = open_key("local:db"), *none = NULL;
	struct cmek_kms_info info;

	ck_assert_int_eq(cmek_kms_open("nothing", NULL, NULL, &none, NULL), -EINVAL);
	ck_assert_int_eq(cmek_kms_describe(kms, &info, NULL), -ENOKEY);
	ck_assert_int_eq(cmek_kms_create(kms, NULL, NULL), 0);
	ck_assert_int_eq(cmek_kms_create(kms, NULL, NULL), -EEXIST);
	cmek_kms_close(kms);
	cmek_kms_close(NULL);
	cmek_kms_blob_done(NULL);
	cmek_kms_info_done(NULL);
}
END_TEST

START_TEST(states_have_names)
{
	ck_assert_str_eq(cmek_kms_state_name(CMEK_KMS_ENABLED), "enabled");
	ck_assert_str_eq(cmek_kms_state_name(CMEK_KMS_DISABLED), "disabled");
	ck_assert_str_eq(cmek_kms_state_name(CMEK_KMS_PENDING_DELETION), "pending-deletion");
	ck_assert_str_eq(cmek_kms_state_name(CMEK_KMS_DESTROYED), "destroyed");
	ck_assert_str_eq(cmek_kms_state_name(CMEK_KMS_STATE_UNKNOWN), "unknown");
	ck_assert_str_eq(cmek_kms_state_name((enum cmek_kms_state)99), "unknown");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("kms");
	TCase *tc = tcase_create("kms");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, uris_are_told_apart, 0, UNIT_ROWS(uri_rows));
	tcase_add_test(tc, a_long_uri_is_refused);
	tcase_add_loop_test(tc, purposes_are_checked, 0, UNIT_ROWS(bad_purposes));
	tcase_add_test(tc, keys_and_blobs_are_checked);
	tcase_add_test(tc, each_operation_is_told);
	tcase_add_test(tc, errors_may_be_ignored);
	tcase_add_test(tc, states_have_names);
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
