/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The provider for Google Cloud over a transport that a test plays: what is asked, and what is made of the answers. */
#include "config.h"

#include <sys/stat.h>

#include "kms/gcp.h"
#include "kms/session.h"
#include "tests/unit/fake_http.h"
#include "tests/vectors/rfc7515_a2.h"

#define KEY "projects/p/locations/l/keyRings/r/cryptoKeys/k"
#define KEY_VERSION KEY "/cryptoKeyVersions/"
#define TOKEN(name) "{\"access_token\": \"" name "\", \"expires_in\": 3599, \"token_type\": \"Bearer\"}"
/* "Y2lwaGVydGV4dA==" is "ciphertext", whose CRC-32C is 395617045; the key is 32 bytes of 0xff, 1655221059. */
#define ENCRYPTED(crc) \
	"{\"name\": \"" KEY_VERSION "7\", \"ciphertext\": \"Y2lwaGVydGV4dA==\", \"ciphertextCrc32c\": \"" crc "\", " \
	"\"verifiedPlaintextCrc32c\": true, \"verifiedAdditionalAuthenticatedDataCrc32c\": true}"
#define GOOD_CRC "395617045"
#define DECRYPTED(primary) \
	"{\"plaintext\": \"//////////////////////////////////////////8=\", \"plaintextCrc32c\": \"1655221059\", " \
	"\"usedPrimary\": " primary "}"
#define FAULT(status, message) "{\"error\": {\"code\": 400, \"status\": \"" status "\", \"message\": \"" message "\"}}"

static struct cmek_error err;
static struct fake_http fake;
static struct cmek_kms_session *session;
static struct cmek_kms *kms;
static char *dir, *file;
static const struct cmek_kms_context ctx = { .volume = { 1 }, .purpose = "data" };

static void write_file(const char *text)
{
	FILE *f = fopen(file, "we");

	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fchmod(fileno(f), 0600), 0);
	ck_assert_int_ge(fputs(text, f), 0);
	ck_assert_int_eq(fclose(f), 0);
}

static void write_account(void)
{
	json_t *json = json_pack("{s:s, s:s, s:s, s:s, s:s}", "type", "service_account", "client_email",
				 "sa@p.iam.gserviceaccount.com", "private_key", rfc7515_pkcs8, "private_key_id", "k1",
				 "token_uri", "http://127.0.0.1:1/token");
	char *text = json_dumps(json, 0);

	write_file(text);
	free(text);
	json_decref(json);
}

/* What was told of operations: "unwrap(1 200 token, 1 200 decrypt) ": each request's id, status and what it was for. */
static char told[1024];

static void add_call(void *arg, const struct cmek_kms_call *call)
{
	size_t n = strlen(told), i;

	(void)arg;
	ck_assert_str_eq(call->provider, "gcp");
	n += (size_t)snprintf(told + n, sizeof(told) - n, "%s %s(", call->operation, call->version);
	for (i = 0; i < call->n_requests; i++)
		n += (size_t)snprintf(told + n, sizeof(told) - n, "%s%s %ld %s", i ? ", " : "", call->requests[i].request_id,
				      call->requests[i].status, strrchr(call->requests[i].what, ',') + 2);
	snprintf(told + n, sizeof(told) - n, ") ");
}

static void ck_told(const char *want)
{
	ck_assert_str_eq(told, want);
	told[0] = '\0';
}

static void open_as(const char *account)
{
	const struct cmek_kms_principal principal = { .service_account = account };
	const struct cmek_kms_options opts = { .session = session, .called = add_call };

	told[0] = '\0';
	cmek_kms_close(kms);
	kms = NULL;
	ck_assert_msg(cmek_kms_open("gcp-kms://" KEY, &principal, &opts, &kms, &err) == 0, "%s", err.text);
}

static void setup(void)
{
	struct cmek_http *http = NULL;

	cmek_secret_allow_unlocked();
	cmek_error_clear(&err);
	dir = unit_tmpdir();
	ck_assert_int_gt(asprintf(&file, "%s/sa.json", dir), 0);
	setenv("GOOGLE_APPLICATION_CREDENTIALS", file, 1);
	unsetenv("GOOGLE_CLOUD_QUOTA_PROJECT");
	unsetenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS");
	fake.time = 1700000000;
	ck_assert_int_eq(cmek_http_new(&fake_ops, &fake, &http, NULL), 0);
	ck_assert_int_eq(cmek_kms_session_over(NULL, http, &session, NULL), 0);
	write_account();
	open_as(NULL);
}

static void teardown(void)
{
	cmek_kms_close(kms);
	cmek_kms_session_free(session);
	fake_reset(&fake);
	unit_rmtree(dir);
	free(file);
	kms = NULL;
	session = NULL;
}

static struct cmek_kms_blob wrapped(void)
{
	return (struct cmek_kms_blob){ (uint8_t *)"ciphertext", 10, (char *)KEY, (char *)"7" };
}

static int unwrap(struct cmek_kms_blob *fresh)
{
	struct cmek_kms_blob blob = wrapped();
	struct cmek_secret *key = NULL;
	int rc;

	cmek_error_clear(&err);
	rc = cmek_kms_unwrap(kms, &ctx, &blob, &key, fresh, &err);
	ck_assert_int_eq(key != NULL, rc == 0);
	cmek_secret_free(key);
	return rc;
}

static int wrap(struct cmek_kms_blob *ret_blob)
{
	struct cmek_secret *key = NULL;
	uint8_t kek[32];
	int rc;

	memset(kek, 0xff, sizeof(kek));
	ck_assert_int_eq(cmek_secret_new_copy(CMEK_KEY_KEK, kek, sizeof(kek), &key, NULL), 0);
	cmek_error_clear(&err);
	rc = cmek_kms_wrap(kms, &ctx, key, ret_blob, &err);
	cmek_secret_free(key);
	return rc;
}

START_TEST(a_token_and_a_request)
{
	struct cmek_kms_blob blob = { 0 };

	fake_says(&fake, 200, NULL, TOKEN("ya29.one"));
	fake_says(&fake, 200, NULL, ENCRYPTED(GOOD_CRC));
	ck_assert_msg(wrap(&blob) == 0, "%s", err.text);
	ck_assert_str_eq(blob.version, "7");
	ck_assert_str_eq(blob.resolved, KEY);
	cmek_kms_blob_done(&blob);
	ck_assert_str_eq(fake.urls[0], "http://127.0.0.1:1/token");
	ck_assert_ptr_nonnull(strstr(fake.bodies[0], "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&"));
	ck_assert_str_eq(strstr(fake.bodies[0], "assertion=") + strlen("assertion="), rfc7523_assertion);
	ck_assert_str_eq(fake.urls[1], "https://cloudkms.googleapis.com/v1/" KEY ":encrypt");
	ck_assert_ptr_nonnull(strstr(fake.headers[1], "Authorization: Bearer ya29.one\n"));
}
END_TEST

START_TEST(a_token_is_used_until_shortly_before_its_end)
{
	fake_says(&fake, 200, NULL, TOKEN("one"));
	for (int i = 0; i < 3; i++)
		fake_says(&fake, 200, NULL, DECRYPTED("true"));
	fake_says(&fake, 200, NULL, TOKEN("two"));
	fake_says(&fake, 200, NULL, DECRYPTED("true"));
	ck_assert_int_eq(unwrap(NULL), 0);
	fake.time += 1800;
	ck_assert_int_eq(unwrap(NULL), 0);
	open_as(NULL); /* another handle of the session */
	ck_assert_int_eq(unwrap(NULL), 0);
	fake.time += 1600; /* 199 s are left */
	ck_assert_int_eq(unwrap(NULL), 0);
	ck_assert_ptr_nonnull(strstr(fake.headers[5], "Bearer two\n"));
}
END_TEST

START_TEST(a_refused_token_is_renewed_once)
{
	fake_says(&fake, 200, NULL, TOKEN("one"));
	fake_says(&fake, 401, NULL, FAULT("UNAUTHENTICATED", "no"));
	fake_says(&fake, 200, NULL, TOKEN("two"));
	fake_says(&fake, 200, NULL, DECRYPTED("true"));
	ck_assert_int_eq(unwrap(NULL), 0);
	fake_says(&fake, 401, NULL, FAULT("UNAUTHENTICATED", "no"));
	fake_says(&fake, 200, NULL, TOKEN("three"));
	fake_says(&fake, 401, NULL, FAULT("UNAUTHENTICATED", "no"));
	ck_assert_int_eq(unwrap(NULL), -EKEYEXPIRED);
	ck_assert_int_eq(err.kind, CMEK_E_EXPIRED);
	ck_assert_uint_eq(fake.n_asked, 7);
}
END_TEST

START_TEST(a_checksum_that_does_not_fit_is_tried_again)
{
	struct cmek_kms_blob blob = { 0 };

	fake_says(&fake, 200, NULL, TOKEN("one"));
	fake_says(&fake, 200, NULL, ENCRYPTED("1"));
	fake_says(&fake, 200, NULL, ENCRYPTED("1"));
	fake_says(&fake, 200, NULL, ENCRYPTED(GOOD_CRC));
	ck_assert_int_eq(wrap(&blob), 0);
	cmek_kms_blob_done(&blob);
	for (int i = 0; i < 3; i++)
		fake_says(&fake, 200, NULL, ENCRYPTED("1"));
	ck_assert_int_eq(wrap(&blob), -EILSEQ);
	ck_assert_ptr_null(blob.data);
	ck_assert_uint_eq(fake.n_asked, 7);
}
END_TEST

START_TEST(an_older_version_makes_a_fresh_blob)
{
	struct cmek_kms_blob fresh = { 0 };

	fake_says(&fake, 200, NULL, TOKEN("one"));
	fake_says(&fake, 200, NULL, DECRYPTED("false"));
	fake_says(&fake, 200, NULL, ENCRYPTED(GOOD_CRC));
	ck_assert_int_eq(unwrap(&fresh), 0);
	ck_assert_uint_eq(fresh.len, 10);
	cmek_kms_blob_done(&fresh);
	/* Not for who did not ask for it, */
	fake_says(&fake, 200, NULL, DECRYPTED("false"));
	ck_assert_int_eq(unwrap(NULL), 0);
	/* and not at any price. */
	fake_says(&fake, 200, NULL, DECRYPTED("false"));
	fake_says(&fake, 403, NULL, FAULT("PERMISSION_DENIED", "no"));
	ck_assert_int_eq(unwrap(&fresh), 0);
	ck_assert_ptr_null(fresh.data);
	ck_assert_uint_eq(fake.n_asked, 6);
}
END_TEST

/* Each operation is told with the requests that it took, and no other one's. */
START_TEST(operations_are_told)
{
	struct cmek_kms_blob blob = { 0 }, foreign = wrapped();
	struct cmek_secret *key = NULL;

	fake_says(&fake, 200, NULL, TOKEN("one"));
	fake_says(&fake, 429, "x-request-id: a\n", FAULT("RESOURCE_EXHAUSTED", "quota"));
	fake_says(&fake, 200, "x-request-id: b\n", DECRYPTED("false"));
	fake_says(&fake, 200, "x-request-id: c\n", ENCRYPTED(GOOD_CRC));
	ck_assert_int_eq(unwrap(&blob), 0);
	cmek_kms_blob_done(&blob);
	ck_told("unwrap 7( 200 token of a service account, a 429 decrypt, b 200 decrypt) wrap 7(c 200 encrypt) ");
	fake_says(&fake, 200, "x-request-id: d\n", DECRYPTED("false"));
	ck_assert_int_eq(unwrap(NULL), 0); /* who wants no fresh blob gets none */
	ck_told("unwrap 7(d 200 decrypt) ");
	foreign.resolved = (char *)"projects/p/locations/l/keyRings/r/cryptoKeys/other";
	ck_assert_int_eq(cmek_kms_unwrap(kms, &ctx, &foreign, &key, NULL, NULL), -EBADMSG);
	ck_told("unwrap 7() "); /* it was not sent */
	fake_says(&fake, 0, NULL, NULL);
	ck_assert_int_lt(unwrap(NULL), 0);
	ck_told("unwrap 7() "); /* nor answered */
}
END_TEST

START_TEST(another_keys_blob_is_not_sent)
{
	struct cmek_kms_blob blob = wrapped();
	struct cmek_secret *key = NULL;

	blob.resolved = (char *)KEY "2";
	ck_assert_int_eq(cmek_kms_unwrap(kms, &ctx, &blob, &key, NULL, &err), -EBADMSG);
	ck_assert_int_eq(err.kind, CMEK_E_TAMPERED);
	ck_assert_uint_eq(fake.n_asked, 0);
}
END_TEST

#define STATE(state) FAULT("FAILED_PRECONDITION", KEY_VERSION "7 is not enabled, current state is: " state ".")

static const struct {
	long http;
	const char *body;
	enum cmek_kind kind;
	int rc;
} fault_rows[] = {
	{ 400, STATE("DISABLED"), CMEK_E_KEY_DISABLED, -EKEYREVOKED },
	{ 400, STATE("DESTROY_SCHEDULED"), CMEK_E_PENDING_DELETION, -EKEYREVOKED },
	{ 400, STATE("DESTROYED"), CMEK_E_KEY_DESTROYED, -EKEYREVOKED },
	{ 400, "{\"error\": {\"status\": \"FAILED_PRECONDITION\", \"message\": \"m\", \"details\": [{\"violations\": "
	       "[{\"type\": \"KEY_DISABLED\"}]}]}}", CMEK_E_KEY_DISABLED, -EKEYREVOKED },
	{ 400, FAULT("INVALID_ARGUMENT", "Decryption failed"), CMEK_E_TAMPERED, -EBADMSG },
	{ 403, FAULT("PERMISSION_DENIED", "no"), CMEK_E_DENIED, -EACCES },
	{ 403, "<html>", CMEK_E_DENIED, -EACCES },
	{ 404, FAULT("NOT_FOUND", "no"), CMEK_E_NOT_FOUND, -ENOKEY },
	{ 404, "<html>", CMEK_E_BAD_FORMAT, -EPROTO }, /* says nothing of the key */
	{ 400, "{\"error\": \"text\", \"error_description\": \"x\\ny\"}", CMEK_E_BAD_FORMAT, -EPROTO },
	{ 200, "{}", CMEK_E_BAD_FORMAT, -EINVAL },
	{ 200, "garbage", CMEK_E_BAD_FORMAT, -EINVAL },
};

START_TEST(faults)
{
	fake_says(&fake, 200, NULL, TOKEN("ya29.secret"));
	fake_says(&fake, fault_rows[_i].http, "x-request-id: id-1\n", fault_rows[_i].body);
	ck_assert_int_eq(unwrap(NULL), fault_rows[_i].rc);
	ck_assert_msg(err.kind == fault_rows[_i].kind, "%s: %s", cmek_kind_name(err.kind), err.text);
	if (fault_rows[_i].http != 200)
		ck_assert_ptr_nonnull(strstr(err.text, "id-1"));
	ck_assert_ptr_null(strstr(err.text, "secret"));
	ck_assert_ptr_null(strchr(err.text, '\n'));
}
END_TEST

START_TEST(a_state_that_is_not_told_is_asked_for)
{
	static const char disabled[] = "{\"name\": \"" KEY "\", \"purpose\": \"ENCRYPT_DECRYPT\", \"primary\": {\"name\": \""
				       KEY_VERSION "7\", \"state\": \"DISABLED\"}}";

	fake_says(&fake, 200, NULL, TOKEN("one"));
	fake_says(&fake, 400, NULL, FAULT("FAILED_PRECONDITION", "no"));
	fake_says(&fake, 200, NULL, disabled);
	ck_assert_int_eq(unwrap(NULL), -EKEYREVOKED);
	ck_assert_int_eq(err.kind, CMEK_E_KEY_DISABLED);
	/* Nobody says that the key was taken away: this may pass. */
	fake_says(&fake, 400, NULL, FAULT("FAILED_PRECONDITION", "no"));
	fake_says(&fake, 403, NULL, FAULT("PERMISSION_DENIED", "no"));
	ck_assert_int_eq(unwrap(NULL), -EBUSY);
	ck_assert_int_eq(err.kind, CMEK_E_BUSY);
}
END_TEST

START_TEST(a_key_that_may_not_be_seen)
{
	struct cmek_kms_info info = { 0 };

	fake_says(&fake, 200, NULL, TOKEN("one"));
	fake_says(&fake, 403, NULL, FAULT("PERMISSION_DENIED", "no"));
	ck_assert_int_eq(cmek_kms_describe(kms, &info, &err), 0);
	ck_assert_int_eq(info.state, CMEK_KMS_STATE_UNKNOWN);
	ck_assert_ptr_nonnull(strstr(info.remark, "cloudkms.cryptoKeys.get"));
	cmek_kms_info_done(&info);
}
END_TEST

START_TEST(a_machine_elsewhere_has_no_credentials)
{
	unsetenv("GOOGLE_APPLICATION_CREDENTIALS");
	setenv("CLOUDSDK_CONFIG", dir, 1);
	unsetenv("GCE_METADATA_HOST");
	unsetenv("GCE_METADATA_IP");
	fake_says(&fake, 0, NULL, NULL);
	ck_assert_int_eq(unwrap(NULL), -ENOKEY);
	ck_assert_int_eq(err.kind, CMEK_E_EXPIRED);
	ck_assert_ptr_nonnull(strstr(err.text, "GOOGLE_APPLICATION_CREDENTIALS"));
	/* Where somebody names a metadata server, there is one, and it is away. */
	setenv("GCE_METADATA_HOST", "metadata.test", 1);
	fake_says(&fake, 0, NULL, NULL);
	ck_assert_int_eq(unwrap(NULL), -ETIMEDOUT);
	ck_assert_int_eq(err.kind, CMEK_E_UNREACHABLE);
	unsetenv("GCE_METADATA_HOST");
	/* One that answers is one, too. */
	fake_says(&fake, 403, NULL, "no");
	ck_assert_int_eq(unwrap(NULL), -EACCES);
	ck_assert_int_eq(err.kind, CMEK_E_DENIED);
	unsetenv("CLOUDSDK_CONFIG");
}
END_TEST

START_TEST(acting_as_another_account)
{
	open_as("other@p.iam.gserviceaccount.com");
	fake_says(&fake, 200, NULL, TOKEN("one"));
	fake_says(&fake, 200, NULL, "{\"accessToken\": \"theirs\", \"expireTime\": \"2023-11-14T23:13:20Z\"}");
	fake_says(&fake, 200, NULL, DECRYPTED("true"));
	ck_assert_int_eq(unwrap(NULL), 0);
	ck_assert_str_eq(fake.urls[1], "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"
				       "other@p.iam.gserviceaccount.com:generateAccessToken");
	ck_assert_ptr_nonnull(strstr(fake.headers[1], "Bearer one\n"));
	ck_assert_ptr_nonnull(strstr(fake.headers[2], "Bearer theirs\n"));
}
END_TEST

static const struct {
	const char *token;
	enum cmek_kind kind;
} token_rows[] = {
	{ "{\"access_token\": \"a\\r\\nX-Evil: b\", \"expires_in\": 10}", CMEK_E_BAD_FORMAT },
	{ "{\"access_token\": \"\", \"expires_in\": 10}", CMEK_E_BAD_FORMAT },
	{ "{\"access_token\": \"a\", \"expires_in\": \"10\"}", CMEK_E_BAD_FORMAT },
	{ "{\"access_token\": \"a\"}", CMEK_E_BAD_FORMAT },
	{ "[]", CMEK_E_BAD_FORMAT },
};

START_TEST(tokens_that_are_refused)
{
	fake_says(&fake, 200, NULL, token_rows[_i].token);
	ck_assert_int_lt(unwrap(NULL), 0);
	ck_assert_int_eq(err.kind, token_rows[_i].kind);
	ck_assert_uint_eq(fake.n_asked, 1);
}
END_TEST

#define USER "{\"type\": \"authorized_user\", \"client_id\": \"a\", \"client_secret\": \"b\", \"refresh_token\": \"c\", "

START_TEST(who_pays)
{
	write_file(USER "\"quota_project_id\": \"payer\"}");
	fake_says(&fake, 200, NULL, TOKEN("one"));
	fake_says(&fake, 200, NULL, DECRYPTED("true"));
	fake_says(&fake, 200, NULL, DECRYPTED("true"));
	ck_assert_int_eq(unwrap(NULL), 0);
	ck_assert_str_eq(fake.bodies[0], "grant_type=refresh_token&client_id=a&client_secret=b&refresh_token=c");
	ck_assert_ptr_nonnull(strstr(fake.headers[1], "x-goog-user-project: payer\n"));
	open_as(NULL); /* whose token is in the cache */
	ck_assert_int_eq(unwrap(NULL), 0);
	ck_assert_ptr_nonnull(strstr(fake.headers[2], "x-goog-user-project: payer\n"));
	write_file(USER "\"quota_project_id\": \"a\\r\\nb: c\"}");
	open_as(NULL);
	ck_assert_int_eq(unwrap(NULL), -EINVAL);
	ck_assert_int_eq(unwrap(NULL), -EINVAL);
	ck_assert_uint_eq(fake.n_asked, 3);
}
END_TEST

START_TEST(secrets_do_not_go_over_the_network_in_clear)
{
	write_file(USER "\"token_uri\": \"http://example.com/token\"}");
	ck_assert_int_lt(unwrap(NULL), 0);
	ck_assert_int_eq(err.kind, CMEK_E_USAGE);
	ck_assert_uint_eq(fake.n_asked, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("gcp");
	TCase *tc = tcase_create("gcp");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_token_and_a_request);
	tcase_add_test(tc, a_token_is_used_until_shortly_before_its_end);
	tcase_add_test(tc, a_refused_token_is_renewed_once);
	tcase_add_test(tc, a_checksum_that_does_not_fit_is_tried_again);
	tcase_add_test(tc, an_older_version_makes_a_fresh_blob);
	tcase_add_test(tc, operations_are_told);
	tcase_add_test(tc, another_keys_blob_is_not_sent);
	tcase_add_loop_test(tc, faults, 0, UNIT_ROWS(fault_rows));
	tcase_add_test(tc, a_state_that_is_not_told_is_asked_for);
	tcase_add_test(tc, a_key_that_may_not_be_seen);
	tcase_add_test(tc, a_machine_elsewhere_has_no_credentials);
	tcase_add_test(tc, acting_as_another_account);
	tcase_add_loop_test(tc, tokens_that_are_refused, 0, UNIT_ROWS(token_rows));
	tcase_add_test(tc, who_pays);
	tcase_add_test(tc, secrets_do_not_go_over_the_network_in_clear);
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
