/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The provider for IBM over a transport that a test plays: what is asked, and what is made of the answers. */
#include "config.h"

#include "kms/ibm.h"
#include "kms/session.h"
#include "tests/unit/fake_http.h"

#define INSTANCE "8e19aaff-df40-4623-bef2-86cb19a9d8bd"
#define ID "2fe79d14-7f5d-4bae-b0e6-4a5c5b1a8d7b"
#define BASE "crn:v1:bluemix:public:kms:eu-de:a/0123:" INSTANCE
#define CRN BASE ":key:" ID
#define URL "https://eu-de.kms.cloud.ibm.com/api/v2/keys"
#define TOKEN(name) "{\"access_token\": \"" name "\", \"expires_in\": 3600, \"token_type\": \"Bearer\"}"
#define PLAIN "\"plaintext\": \"//////////////////////////////////////////8=\""
#define FAULT(code) \
	"{\"resources\": [{\"errorMsg\": \"Conflict: see reasons\", \"reasons\": [{\"code\": \"" code "\", \"status\": 409}]}]}"
#define META(rest) "{\"resources\": [{\"id\": \"" ID "\", \"extractable\": false, " rest "}]}"

static struct cmek_error err;
static struct fake_http fake;
static struct cmek_kms_session *session;
static struct cmek_kms *kms;
static const struct cmek_kms_context ctx = { .volume = { 1 }, .purpose = "data" };

static void open_key(const char *crn, const char *profile)
{
	const struct cmek_kms_principal principal = { .profile = profile };
	const struct cmek_kms_options opts = { .session = session };

	cmek_kms_close(kms);
	kms = NULL;
	ck_assert_msg(cmek_kms_open(crn, &principal, &opts, &kms, &err) == 0, "%s", err.text);
}

static void setup(void)
{
	struct cmek_http *http = NULL;

	cmek_secret_allow_unlocked();
	cmek_error_clear(&err);
	setenv("IBMCLOUD_API_KEY", "my+api key", 1);
	unsetenv("IBMCLOUD_KP_ENDPOINT");
	unsetenv("IBMCLOUD_KP_API_ENDPOINT");
	unsetenv("IBMCLOUD_IAM_API_ENDPOINT");
	fake.time = 1700000000;
	ck_assert_int_eq(cmek_http_new(&fake_ops, &fake, &http, NULL), 0);
	ck_assert_int_eq(cmek_kms_session_over(NULL, http, &session, NULL), 0);
	open_key(CRN, NULL);
}

static void teardown(void)
{
	cmek_kms_close(kms);
	cmek_kms_session_free(session);
	fake_reset(&fake);
	kms = NULL;
	session = NULL;
}

static int unwrap(struct cmek_kms_blob *fresh)
{
	const struct cmek_kms_blob blob = { (uint8_t *)"eyJ9", 4, (char *)CRN, (char *)"v1" };
	struct cmek_secret *key = NULL;
	int rc;

	cmek_error_clear(&err);
	rc = cmek_kms_unwrap(kms, &ctx, &blob, &key, fresh, &err);
	ck_assert_int_eq(key != NULL, rc == 0);
	cmek_secret_free(key);
	return rc;
}

START_TEST(a_token_and_a_request)
{
	struct cmek_kms_blob fresh = { 0 };

	fake_says(&fake, 200, NULL, TOKEN("one"));
	fake_says(&fake, 200, NULL, "{" PLAIN ", \"keyVersion\": {\"id\": \"v1\"}}");
	ck_assert_msg(unwrap(&fresh) == 0, "%s", err.text);
	ck_assert_ptr_null(fresh.data);
	ck_assert_str_eq(fake.urls[0], "https://iam.cloud.ibm.com/identity/token");
	ck_assert_str_eq(fake.bodies[0], "grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey&apikey=my%2Bapi%20key");
	ck_assert_str_eq(fake.urls[1], URL "/" ID "/actions/unwrap");
	ck_assert_ptr_nonnull(strstr(fake.headers[1], "Authorization: Bearer one\n"));
	ck_assert_ptr_nonnull(strstr(fake.headers[1], "Bluemix-Instance: " INSTANCE "\n"));
	ck_assert_ptr_nonnull(strstr(fake.headers[1], "Correlation-Id: "));
}
END_TEST

START_TEST(a_fresher_blob_is_handed_up)
{
	static const char rotated[] = "{" PLAIN ", \"ciphertext\": \"bmV3\", \"keyVersion\": {\"id\": \"v1\"}, "
				      "\"rewrappedKeyVersion\": {\"id\": \"v2\"}}";
	struct cmek_kms_blob fresh = { 0 };

	fake_says(&fake, 200, NULL, TOKEN("one"));
	fake_says(&fake, 200, NULL, rotated);
	fake_says(&fake, 200, NULL, rotated);
	ck_assert_int_eq(unwrap(&fresh), 0);
	ck_assert_str_eq(fresh.version, "v2");
	ck_assert_str_eq(fresh.resolved, CRN);
	cmek_kms_blob_done(&fresh);
	ck_assert_int_eq(unwrap(NULL), 0);
}
END_TEST

START_TEST(rewrap_is_the_services)
{
	const struct cmek_kms_blob blob = { (uint8_t *)"eyJ9", 4, (char *)CRN, (char *)"v1" };
	struct cmek_kms_blob fresh = { 0 };

	fake_says(&fake, 200, NULL, TOKEN("one"));
	fake_says(&fake, 200, NULL, "{\"ciphertext\": \"bmV3\", \"keyVersion\": {\"id\": \"v1\"}, \"rewrappedKeyVersion\": "
				    "{\"id\": \"v2\"}}");
	ck_assert_int_eq(cmek_kms_rewrap(kms, &ctx, &blob, &fresh, &err), 0);
	ck_assert_str_eq(fake.urls[1], URL "/" ID "/actions/rewrap");
	ck_assert_str_eq(fresh.version, "v2");
	cmek_kms_blob_done(&fresh);
}
END_TEST

#define UNAUTHORIZED "{\"resources\": [{\"errorMsg\": \"Unauthorized\"}]}"

START_TEST(unauthorized_with_a_new_token_means_denied)
{
	fake_says(&fake, 200, NULL, TOKEN("one"));
	fake_says(&fake, 401, NULL, UNAUTHORIZED);
	fake_says(&fake, 200, NULL, TOKEN("two"));
	fake_says(&fake, 200, NULL, "{" PLAIN "}");
	ck_assert_int_eq(unwrap(NULL), 0);
	fake_says(&fake, 401, NULL, UNAUTHORIZED);
	fake_says(&fake, 200, NULL, TOKEN("three"));
	fake_says(&fake, 401, NULL, UNAUTHORIZED);
	ck_assert_int_eq(unwrap(NULL), -EACCES);
	ck_assert_int_eq(err.kind, CMEK_E_DENIED);
	ck_assert_uint_eq(fake.n_asked, 7);
}
END_TEST

static const struct {
	long http;
	const char *body, *metadata; /* NULL = it is not asked for */
	enum cmek_kind kind;
	int rc;
} fault_rows[] = {
	{ 409, FAULT("KEY_ACTION_INVALID_STATE_ERR"), META("\"state\": 2"), CMEK_E_KEY_DISABLED, -EKEYREVOKED },
	{ 409, FAULT("KEY_ACTION_INVALID_STATE_ERR"), META("\"state\": 5, \"deletionDate\": \"2023-11-14T00:00:00Z\""),
	  CMEK_E_PENDING_DELETION, -EKEYREVOKED },
	{ 410, FAULT("KEY_DELETED_ERR"), META("\"state\": 5, \"deletionDate\": \"2023-09-14T00:00:00Z\""),
	  CMEK_E_KEY_DESTROYED, -EKEYREVOKED },
	{ 409, "{}", NULL, CMEK_E_BUSY, -EBUSY },
	{ 422, FAULT("UNPROCESSABLE_CIPHERTEXT_ERR"), NULL, CMEK_E_TAMPERED, -EBADMSG },
	{ 400, FAULT("INVALID_FIELD_ERR"), NULL, CMEK_E_TAMPERED, -EBADMSG },
	{ 403, "<html>", NULL, CMEK_E_DENIED, -EACCES },
	{ 404, "{\"resources\": [{\"errorMsg\": \"Not Found\"}]}", NULL, CMEK_E_NOT_FOUND, -ENOKEY },
	{ 404, FAULT("KEY_NOT_FOUND_ERR"), NULL, CMEK_E_KEY_DESTROYED, -EKEYREVOKED }, /* it has wrapped this once */
	{ 200, "{}", NULL, CMEK_E_BAD_FORMAT, -EINVAL },
	{ 200, "garbage", NULL, CMEK_E_BAD_FORMAT, -EINVAL },
};

START_TEST(faults)
{
	fake_says(&fake, 200, NULL, TOKEN("secret-token"));
	fake_says(&fake, fault_rows[_i].http, "correlation-id: id-1\n", fault_rows[_i].body);
	if (fault_rows[_i].metadata)
		fake_says(&fake, 200, NULL, fault_rows[_i].metadata);
	ck_assert_msg(unwrap(NULL) == fault_rows[_i].rc, "%d %s", err.err, err.text);
	ck_assert_msg(err.kind == fault_rows[_i].kind, "%s: %s", cmek_kind_name(err.kind), err.text);
	if (fault_rows[_i].http != 200)
		ck_assert_ptr_nonnull(strstr(err.text, "id-1"));
	ck_assert_ptr_null(strstr(err.text, "secret"));
	ck_assert_uint_eq(fake.n_asked, fault_rows[_i].metadata ? 3 : 2);
}
END_TEST

/* IAM refuses an API key with status 400 and one of many codes. */
START_TEST(credentials_that_are_not_taken)
{
	fake_says(&fake, 400, NULL, "{\"errorCode\": \"BXNIM9999E\", \"errorMessage\": \"no\"}");
	ck_assert_int_eq(unwrap(NULL), -EKEYEXPIRED);
	ck_assert_ptr_nonnull(strstr(err.text, "BXNIM9999E: no"));
	unsetenv("IBMCLOUD_API_KEY");
	ck_assert_int_eq(unwrap(NULL), -ENOKEY);
	ck_assert_ptr_nonnull(strstr(err.text, "IBMCLOUD_API_KEY"));
	ck_assert_uint_eq(fake.n_asked, 1);
}
END_TEST

START_TEST(a_profile_is_assumed)
{
	open_key(CRN, "Profile-1");
	fake_says(&fake, 200, NULL, TOKEN("own"));
	fake_says(&fake, 200, NULL, TOKEN("profile"));
	fake_says(&fake, 200, NULL, "{" PLAIN "}");
	ck_assert_int_eq(unwrap(NULL), 0);
	ck_assert_str_eq(fake.bodies[1], "grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aassume&access_token=own"
					 "&profile_id=Profile-1");
	ck_assert_ptr_nonnull(strstr(fake.headers[2], "Bearer profile\n"));
}
END_TEST

START_TEST(a_virtual_server_has_a_profile)
{
	unsetenv("IBMCLOUD_API_KEY");
	open_key(CRN, "Profile-1");
	fake_says(&fake, 200, NULL, "{\"access_token\": \"instance\", \"expires_in\": 300}");
	fake_says(&fake, 200, NULL, TOKEN("profile"));
	fake_says(&fake, 200, NULL, "{" PLAIN "}");
	ck_assert_msg(unwrap(NULL) == 0, "%s", err.text);
	ck_assert_str_eq(fake.urls[0], "http://169.254.169.254/instance_identity/v1/token?version=2022-03-01");
	ck_assert_ptr_nonnull(strstr(fake.headers[0], "Metadata-Flavor: ibm\n"));
	ck_assert_ptr_nonnull(strstr(fake.headers[1], "Bearer instance\n"));
	ck_assert_str_eq(fake.bodies[1], "{\"trusted_profile\":{\"id\":\"Profile-1\"}}");
}
END_TEST

START_TEST(a_machine_elsewhere_has_no_identity)
{
	unsetenv("IBMCLOUD_API_KEY");
	unsetenv("CREDENTIALS_DIRECTORY");
	open_key(CRN, "Profile-1");
	fake_says(&fake, 0, NULL, NULL);
	ck_assert_int_eq(unwrap(NULL), -ENOKEY);
	ck_assert_int_eq(err.kind, CMEK_E_EXPIRED);
	ck_assert_ptr_nonnull(strstr(err.text, "no identity"));
	fake_says(&fake, 404, NULL, "{}");
	ck_assert_int_eq(unwrap(NULL), -ENOKEY);
	ck_assert_int_eq(err.kind, CMEK_E_EXPIRED);
	fake_says(&fake, 403, NULL, "{}");
	ck_assert_int_eq(unwrap(NULL), -EACCES);
	ck_assert_int_eq(err.kind, CMEK_E_DENIED);
}
END_TEST

START_TEST(an_instance_only_makes_keys)
{
	struct cmek_kms_create how = { .name = "d\"b" };
	struct cmek_kms_info info = { 0 };

	open_key(BASE "::", NULL);
	ck_assert_int_eq(unwrap(NULL), -EBADMSG); /* wrapped by a key, not by this */
	ck_assert_int_eq(cmek_kms_describe(kms, &info, NULL), -EINVAL);
	ck_assert_int_eq(cmek_kms_policy(kms, NULL, &(struct cmek_kms_policy){ 0 }, NULL), -EINVAL);
	ck_assert_uint_eq(fake.n_asked, 0);
	fake_says(&fake, 200, NULL, TOKEN("one"));
	fake_says(&fake, 201, NULL, "{\"resources\": [{\"crn\": \"" CRN "\"}]}");
	fake_says(&fake, 200, NULL, META("\"state\": 1"));
	fake_says(&fake, 200, NULL, "{\"resources\": []}");
	ck_assert_msg(cmek_kms_create(kms, &how, &err) == 0, "%s", err.text);
	ck_assert_str_eq(fake.urls[1], URL);
	ck_assert_ptr_nonnull(strstr(fake.bodies[1], "\"name\":\"d\\\"b\",\"extractable\":false"));
	ck_assert_int_eq(cmek_kms_describe(kms, &info, &err), 0);
	ck_assert_str_eq(info.resolved, CRN);
	cmek_kms_info_done(&info);
	ck_assert_int_eq(cmek_kms_create(kms, &how, &err), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("ibm");
	TCase *tc = tcase_create("ibm");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_token_and_a_request);
	tcase_add_test(tc, a_fresher_blob_is_handed_up);
	tcase_add_test(tc, rewrap_is_the_services);
	tcase_add_test(tc, unauthorized_with_a_new_token_means_denied);
	tcase_add_loop_test(tc, faults, 0, UNIT_ROWS(fault_rows));
	tcase_add_test(tc, credentials_that_are_not_taken);
	tcase_add_test(tc, a_profile_is_assumed);
	tcase_add_test(tc, a_virtual_server_has_a_profile);
	tcase_add_test(tc, a_machine_elsewhere_has_no_identity);
	tcase_add_test(tc, an_instance_only_makes_keys);
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
