/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The manifest of cmekctl slot apply: what it says, and every way in which one is refused. */
#include "config.h"

#include <check.h>
#include <string.h>

#include "tests/unit/unit.h"
#include "tools/ctl_manifest.h"

#define SPECS(members) "{\"region_specs\":[{\"key_spec\":{" members "}}]}"
#define AWS "\"type\":\"AWS_KMS\",\"uri\":\"aws-kms://k\""
#define CHARS(c) c c c c c c c c c c c c c c c c
#define LONG_TEXT CHARS(CHARS("12345678")) "9"

static const struct {
	const char *text;
	const char *problem; /* NULL = taken */
	size_t n_keys;
	bool revoke;
} manifests[] = {
	{ SPECS(AWS), NULL, 1, false },
	{ SPECS(AWS ",\"auth_principal\":\"r\",\"external_id\":\"17\""), NULL, 1, false },
	{ SPECS("\"type\":\"GCP_CLOUD_KMS\",\"uri\":\"u\",\"auth_principal\":\"a@b\""), NULL, 1, false },
	{ "{\"action\":\"REVOKE\"}", NULL, 0, true },
	{ "{\"action\":\"REVOKE\",\"region_specs\":[{\"key_spec\":{" AWS "}}]}", NULL, 1, true },
	{ "[]", "m is not a JSON object", 0, false },
	{ "{}", "region_specs", 0, false },
	{ "{\"region_specs\":[]}", "region_specs is empty", 0, false },
	{ "{\"action\":\"REVOKE\",\"region_specs\":[]}", "region_specs is empty", 0, false },
	{ "{\"action\":\"DROP\"}", "action is neither", 0, false },
	{ "{\"region_spec\":[]}", "has a member that", 0, false },
	{ SPECS("\"type\":\"VAULT\",\"uri\":\"u\""), "key_spec.type is none of", 0, false },
	{ SPECS("\"type\":\"LOCAL\",\"uri\":\"\""), "key_spec.uri is empty", 0, false },
	{ SPECS("\"type\":\"LOCAL\",\"uri\":\"u\",\"auth_principal\":\"r\""), "makes no sense", 0, false },
	{ SPECS(AWS ",\"external_id\":\"17\""), "external_id goes with", 0, false },
	/* What a slot could not have. */
	{ SPECS(AWS ",\"auth_principal\":\"\""), "[0].key_spec.auth_principal is empty", 0, false },
	{ SPECS(AWS ",\"auth_principal\":\"a\\nb\""), "[0].key_spec.auth_principal is empty", 0, false },
	{ SPECS(AWS ",\"auth_principal\":\"" LONG_TEXT "\""), "[0].key_spec.auth_principal is empty", 0, false },
	{ SPECS(AWS ",\"auth_principal\":\"r\",\"external_id\":\"\""), "[0].key_spec.external_id is empty", 0, false },
	{ SPECS(AWS ",\"auth_principal\":\"r\",\"external_id\":\"\\u007f\""), "external_id is empty", 0, false },
};

START_TEST(table)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_manifest manifest;
	int ret = cmek_manifest_parse(manifests[_i].text, strlen(manifests[_i].text), "m", &manifest, &err);

	if (manifests[_i].problem) {
		ck_assert_int_lt(ret, 0);
		ck_assert_int_eq(err.kind, CMEK_E_BAD_FORMAT);
		ck_assert_msg(strstr(err.text, manifests[_i].problem) != NULL, "%s", err.text);
	} else {
		ck_assert_msg(ret == 0, "%s", err.text);
		ck_assert_uint_eq(manifest.n_keys, manifests[_i].n_keys);
		ck_assert_int_eq(manifest.revoke, manifests[_i].revoke);
	}
	cmek_manifest_done(&manifest);
}
END_TEST

START_TEST(principals)
{
	static const char text[] = "{\"region_specs\":["
		"{\"region\":\"eu\",\"key_spec\":{" AWS ",\"auth_principal\":\"r\",\"external_id\":\"17\"}},"
		"{\"key_spec\":{\"type\":\"GCP_CLOUD_KMS\",\"uri\":\"g\",\"auth_principal\":\"a@b\"}},"
		"{\"key_spec\":{\"type\":\"IBM_KEY_PROTECT\",\"uri\":\"i\",\"auth_principal\":\"p\"}}]}";
	struct cmek_manifest m;

	ck_assert_int_eq(cmek_manifest_parse(text, strlen(text), "m", &m, NULL), 0);
	ck_assert_uint_eq(m.n_keys, 3);
	ck_assert_str_eq(m.keys[0].provider, "aws");
	ck_assert_str_eq(m.keys[0].region, "eu");
	ck_assert_str_eq(m.keys[0].principal.role, "r");
	ck_assert_str_eq(m.keys[0].principal.external_id, "17");
	ck_assert_ptr_null(m.keys[1].region);
	ck_assert_str_eq(m.keys[1].principal.service_account, "a@b");
	ck_assert_ptr_null(m.keys[1].principal.role);
	ck_assert_str_eq(m.keys[2].principal.profile, "p");
	cmek_manifest_done(&m);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("manifest");
	TCase *tc = tcase_create("parse");

	tcase_add_loop_test(tc, table, 0, UNIT_ROWS(manifests));
	tcase_add_test(tc, principals);
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
