/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Answers of AWS: errors in their many shapes, credentials in JSON and XML, what describes a key. */
#include "config.h"

#include "kms/aws_wire.h"
#include "tests/unit/unit.h"

static struct cmek_error err;

static void setup(void)
{
	cmek_json_init();
	memset(&err, 0, sizeof(err));
}

static const struct {
	const char *body, *code, *message;
} problem_rows[] = {
	{ "{\"__type\":\"NotFoundException\",\"message\":\"gone\"}", "NotFoundException", "gone" },
	{ "{\"__type\":\"AccessDeniedException\",\"Message\":\"User: x\"}", "AccessDeniedException", "User: x" },
	{ "{\"__type\":\"com.amazonaws.kms#DisabledException\"}", "DisabledException", "" },
	{ "{\"__type\":\"ns#ThrottlingException:http://x/\",\"message\":null}", "ThrottlingException", "" },
	{ "{\"code\":\"AccessDenied\",\"message\":\"not you\"}", "AccessDenied", "not you" },
	{ "{\"__type\":7}", "", "" },
	{ "{\"__type\":\"A\\u001b[31mB\"}", "A [31mB", "" },
	{ "[]", "", "" },
	{ "", "", "" },
	{ "<html><body>Bad Gateway</body></html>", "", "" },
	{ "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>"
	  "<Code>AccessDenied</Code><Message>no &amp; no</Message></Error><RequestId>r</RequestId></ErrorResponse>",
	  "AccessDenied", "no &amp; no" },
	{ "<Error><Code>Half", "", "" },
	{ "<Code><b>x</b></Code>", "", "" },
};

START_TEST(problems)
{
	struct cmek_http_response resp = { .body = (char *)problem_rows[_i].body, .body_len = strlen(problem_rows[_i].body) };
	struct cmek_problem p = { .code = "" };

	cmek_aws_read_problem(&resp, &p);
	ck_assert_str_eq(p.code, problem_rows[_i].code);
	ck_assert_str_eq(p.message, problem_rows[_i].message);
}
END_TEST

#define KEYS "\"AccessKeyId\":\"AKID\",\"SecretAccessKey\":\"s/+=\""

static const struct {
	const char *text;
	const char *token; /* NULL: none */
	int64_t expires;   /* -1: refused */
} json_rows[] = {
	{ "{" KEYS "}", NULL, INT64_MAX },
	{ "{\"Version\":1," KEYS ",\"SessionToken\":\"t\",\"Expiration\":\"2030-01-01T00:00:00Z\"}", "t", 1893456000 },
	{ "{\"Code\":\"Success\"," KEYS ",\"Token\":\"t\",\"Expiration\":\"2030-01-01T00:00:00.123Z\"}", "t", 1893456000 },
	{ "{" KEYS ",\"Token\":\"t\",\"Expiration\":\"2030-01-01T00:00:00+00:00\"}", "t", 1893456000 },
	{ "{\"Code\":\"Failed\"," KEYS "}", NULL, -1 },
	{ "{\"AccessKeyId\":\"AKID\"}", NULL, -1 },
	{ "{\"AccessKeyId\":\"A\\nB\",\"SecretAccessKey\":\"s\"}", NULL, -1 },
	{ "{\"AccessKeyId\":\"A/B\",\"SecretAccessKey\":\"s\"}", NULL, -1 },
	{ "{\"AccessKeyId\":\"\",\"SecretAccessKey\":\"s\"}", NULL, -1 },
	{ "{" KEYS ",\"Token\":\"t t\"}", NULL, -1 },
	{ "{" KEYS ",\"Token\":7}", NULL, -1 },
	{ "{" KEYS ",\"Expiration\":\"tomorrow\"}", NULL, -1 },
	{ "{" KEYS ",\"Expiration\":\"2030-01-01T00:00:00+02:00\"}", NULL, -1 },
	{ "[]", NULL, -1 },
	{ "nothing", NULL, -1 },
};

static void check_creds(struct cmek_aws_creds *creds, const char *token, int64_t expires)
{
	ck_assert_str_eq(creds->access_key, "AKID");
	ck_assert_str_eq((const char *)cmek_secret_bytes(creds->secret_key, CMEK_KEY_TEXT), "s/+=");
	ck_assert_int_eq(creds->expires, expires);
	if (token)
		ck_assert_str_eq((const char *)cmek_secret_bytes(creds->token, CMEK_KEY_TEXT), token);
	else
		ck_assert_ptr_null(creds->token);
	cmek_aws_creds_done(creds);
}

START_TEST(credentials_in_json)
{
	struct cmek_aws_creds creds = { .access_key = "" };
	int rc = cmek_aws_creds_from_json(json_rows[_i].text, strlen(json_rows[_i].text), "the test", &creds, &err);

	if (json_rows[_i].expires < 0) {
		ck_assert_int_eq(rc, -EINVAL);
		ck_assert_ptr_null(creds.secret_key);
		ck_assert_ptr_null(strstr(err.text, "s/+="));
	} else {
		ck_assert_msg(rc == 0, "%s", err.text);
		check_creds(&creds, json_rows[_i].token, json_rows[_i].expires);
	}
}
END_TEST

#define STS(credentials)                                                                                            \
	"<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>"   \
	credentials "</Credentials><AssumedRoleUser><AssumedRoleId>i</AssumedRoleId><Arn>a</Arn></AssumedRoleUser>" \
	"</AssumeRoleResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></AssumeRoleResponse>"
#define XML_KEYS "<AccessKeyId>AKID</AccessKeyId><SecretAccessKey>s/+=</SecretAccessKey>"

static const struct {
	const char *text;
	bool ok;
} xml_rows[] = {
	{ STS(XML_KEYS "<SessionToken>t</SessionToken><Expiration>2030-01-01T00:00:00Z</Expiration>"), true },
	{ STS("\n  " XML_KEYS "\n  <SessionToken>t</SessionToken>\n  <Expiration>2030-01-01T00:00:00Z</Expiration>\n"), true },
	{ STS(XML_KEYS "<SessionToken>t</SessionToken>"), false },
	{ STS(XML_KEYS "<SessionToken>t</SessionToken><Expiration>soon</Expiration>"), false },
	{ STS(XML_KEYS "<Expiration>2030-01-01T00:00:00Z</Expiration>"), false },
	{ STS(XML_KEYS "<SessionToken>t<!-- x --></SessionToken><Expiration>2030-01-01T00:00:00Z</Expiration>"), false },
	{ STS(XML_KEYS "<SessionToken>a b</SessionToken><Expiration>2030-01-01T00:00:00Z</Expiration>"), false },
	{ "<AccessKeyId>AKID</Access", false },
	{ "<AccessKeyId>", false },
	{ "<", false },
	{ "", false },
};

START_TEST(credentials_in_xml)
{
	struct cmek_aws_creds creds = { .access_key = "" };
	int rc = cmek_aws_creds_from_xml(xml_rows[_i].text, strlen(xml_rows[_i].text), "the test", &creds, &err);

	if (xml_rows[_i].ok) {
		ck_assert_msg(rc == 0, "%s", err.text);
		check_creds(&creds, "t", 1893456000);
	} else {
		ck_assert_int_eq(rc, -EINVAL);
		ck_assert_ptr_null(creds.secret_key);
	}
}
END_TEST

static const struct {
	const char *state;
	enum cmek_kms_state means;
} state_rows[] = {
	{ "Enabled", CMEK_KMS_ENABLED },
	{ "Disabled", CMEK_KMS_DISABLED },
	{ "PendingDeletion", CMEK_KMS_PENDING_DELETION },
	{ "PendingReplicaDeletion", CMEK_KMS_PENDING_DELETION },
	{ "PendingImport", CMEK_KMS_DISABLED },
	{ "Creating", CMEK_KMS_STATE_UNKNOWN },
	{ "Unavailable", CMEK_KMS_STATE_UNKNOWN },
	{ "SomethingNew", CMEK_KMS_STATE_UNKNOWN },
};

START_TEST(states)
{
	json_t *json = json_pack("{s:{s:s, s:s, s:f, s:f, s:s, s:s, s:i}}", "KeyMetadata", "Arn", "arn:x", "KeyState",
				 state_rows[_i].state, "CreationDate", 1700000000.25, "DeletionDate", 1.7e9, "Origin",
				 "AWS_KMS", "CurrentKeyMaterialId", "m1", "Unknown", 1);
	struct cmek_aws_metadata meta;

	ck_assert_msg(cmek_aws_metadata_from_json(json, &meta, &err) == 0, "%s", err.text);
	ck_assert_int_eq(meta.info.state, state_rows[_i].means);
	ck_assert_str_eq(meta.key_state, state_rows[_i].state);
	ck_assert_str_eq(meta.info.resolved, "arn:x");
	ck_assert_str_eq(meta.info.primary_version, "m1");
	ck_assert_int_eq(meta.info.created, 1700000000);
	ck_assert_int_eq(meta.info.deletion_date, 1700000000);
	ck_assert_uint_eq(meta.info.n_versions, 1);
	cmek_aws_metadata_done(&meta);
	json_decref(json);
}
END_TEST

START_TEST(rotations_go_on)
{
	static const char text[] = "{\"Rotations\":[{\"KeyMaterialId\":\"a\"},{\"KeyMaterialId\":\"b\",\"RotationDate\":5},{}],"
				   "\"Truncated\":true,\"NextMarker\":\"m\"}";
	struct cmek_kms_info info = { .state = CMEK_KMS_ENABLED };
	char *marker = NULL;
	json_t *json = NULL;

	ck_assert_int_eq(cmek_json_parse(text, strlen(text), "x", &json, &err), 0);
	ck_assert_int_eq(cmek_aws_rotations_from_json(json, &info, &marker, &err), 0);
	ck_assert_uint_eq(info.n_versions, 2);
	ck_assert_str_eq(info.versions[1].id, "b");
	ck_assert_int_eq(info.versions[1].created, 5);
	ck_assert_str_eq(marker, "m");
	free(marker);
	cmek_kms_info_done(&info);
	json_decref(json);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("aws_wire");
	TCase *t = tcase_create("aws_wire");

	tcase_add_checked_fixture(t, setup, NULL);
	tcase_add_loop_test(t, problems, 0, UNIT_ROWS(problem_rows));
	tcase_add_loop_test(t, credentials_in_json, 0, UNIT_ROWS(json_rows));
	tcase_add_loop_test(t, credentials_in_xml, 0, UNIT_ROWS(xml_rows));
	tcase_add_loop_test(t, states, 0, UNIT_ROWS(state_rows));
	tcase_add_test(t, rotations_go_on);
	suite_add_tcase(s, t);
	return unit_run(s);
}
