/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the URIs of cloud keys say, and what is refused of them: parts of them become hosts and paths of requests. */
#include "config.h"

#include "kms/kms.h"
#include "kms/kms_uri.h"
#include "tests/unit/unit.h"

#define NAME "projects/p-1/locations/europe-west3/keyRings/r_1/cryptoKeys/K-1"
#define A63 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static const struct {
	const char *uri, *name; /* NULL = refused */
} gcp_rows[] = {
	{ "gcp-kms://" NAME, NAME },
	{ NAME, NAME },
	{ "projects/example.com:p/locations/global/keyRings/r/cryptoKeys/k",
	  "projects/example.com:p/locations/global/keyRings/r/cryptoKeys/k" },
	{ "projects/p/locations/l/keyRings/" A63 "/cryptoKeys/" A63,
	  "projects/p/locations/l/keyRings/" A63 "/cryptoKeys/" A63 },
	{ "projects/p/locations/l/keyRings/r/cryptoKeys/" A63 "a", NULL },
	{ NAME "/cryptoKeyVersions/1", NULL },
	{ NAME "/", NULL },
	{ NAME "?x=1", NULL },
	{ NAME " ", NULL },
	{ "gcp-kms:///" NAME, NULL },
	{ "gcp-kms://", NULL },
	{ "", NULL },
	{ "projects//locations/l/keyRings/r/cryptoKeys/k", NULL },
	{ "projects/p/locations/../keyRings/r/cryptoKeys/k", NULL },
	{ "projects/p/locations/l@host/keyRings/r/cryptoKeys/k", NULL },
	{ "projects/p/locations/l/keyRings/r%2f/cryptoKeys/k", NULL },
	{ "projects/p/locations/l/keyRings/r", NULL },
};

START_TEST(gcp_names)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	const char *name = NULL;
	int rc = cmek_kms_uri_gcp(gcp_rows[_i].uri, &name, &err);

	if (gcp_rows[_i].name) {
		ck_assert_int_eq(rc, 0);
		ck_assert_str_eq(name, gcp_rows[_i].name);
		return;
	}
	ck_assert_int_eq(rc, -EINVAL);
	ck_assert_int_eq(err.kind, CMEK_E_USAGE);
	ck_assert_ptr_null(name);
}
END_TEST

START_TEST(gcp_version_is_refused_with_the_reason)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	const char *name = NULL;

	ck_assert_int_eq(cmek_kms_uri_gcp("gcp-kms://" NAME "/cryptoKeyVersions/3", &name, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "names one version of a key"));
}
END_TEST

#define INSTANCE "8e19aaff-df40-4623-bef2-86cb19a9d8bd"
#define ID "2fe79d14-7f5d-4bae-b0e6-4a5c5b1a8d7b"
#define ACCOUNT "a/0123456789abcdef0123456789abcdef"

static const struct {
	const char *uri;
	bool ok;
} ibm_rows[] = {
	{ "crn:v1:bluemix:public:kms:eu-de:" ACCOUNT ":" INSTANCE ":key:" ID, true },
	{ "crn:v1:bluemix:public:kms:eu-de:" ACCOUNT ":" INSTANCE ":key:2FE79D14-7F5D-4BAE-B0E6-4A5C5B1A8D7B", true },
	{ "crn:v1:bluemix:public:kms:eu-de:" ACCOUNT ":" INSTANCE "::x", false },
	{ "crn:v1:bluemix:public:kms:eu-de:" ACCOUNT ":" INSTANCE ":", false },
	{ "crn:v1:bluemix:public:kms:eu-de:" ACCOUNT ":" INSTANCE ":key:", false },
	{ "crn:v1:bluemix:public:kms:eu-de:" ACCOUNT ":" INSTANCE ":key:my-alias", false },
	{ "crn:v1:bluemix:public:kms:eu-de:" ACCOUNT ":" INSTANCE ":key:" ID ":", false },
	{ "crn:v1:bluemix:public:kms:eu-de:" ACCOUNT "::key:" ID, false },
	{ "crn:v1:bluemix:public:kms:eu-de:" ACCOUNT ":../../x:key:" ID, false },
	{ "crn:v1:bluemix:public:kms:evil.example/:" ACCOUNT ":" INSTANCE ":key:" ID, false },
	{ "crn:v1:bluemix:public:kms:evil.example:" ACCOUNT ":" INSTANCE ":key:" ID, false },
	{ "crn:v1:bluemix:public:kms::" ACCOUNT ":" INSTANCE ":key:" ID, false },
	{ "crn:v1:bluemix:public:kms:aaaaaaaaaabbbbbbbbbbccccccccccdd:" ACCOUNT ":" INSTANCE ":key:" ID, false },
	{ "crn:v1:bluemix:public:hs-crypto:eu-de:" ACCOUNT ":" INSTANCE ":key:" ID, false },
	{ "crn:v2:bluemix:public:kms:eu-de:" ACCOUNT ":" INSTANCE ":key:" ID, false },
	{ "crn:", false },
	{ ID, false },
};

START_TEST(ibm_crns)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_kms_crn crn;
	int rc = cmek_kms_uri_ibm(ibm_rows[_i].uri, &crn, &err);

	if (ibm_rows[_i].ok) {
		ck_assert_int_eq(rc, 0);
		ck_assert_str_eq(crn.region, "eu-de");
		ck_assert_str_eq(crn.instance, INSTANCE);
		ck_assert_str_eq(crn.key, ID);
		return;
	}
	ck_assert_int_eq(rc, -EINVAL);
	ck_assert_int_eq(err.kind, CMEK_E_USAGE);
	ck_assert_ptr_nonnull(strstr(err.text, "full CRN"));
}
END_TEST

START_TEST(ibm_instance)
{
	struct cmek_kms_crn crn;

	ck_assert_int_eq(cmek_kms_uri_ibm("crn:v1:bluemix:public:kms:eu-de:" ACCOUNT ":" INSTANCE "::", &crn, NULL), 0);
	ck_assert_str_eq(crn.instance, INSTANCE);
	ck_assert_str_eq(crn.key, "");
}
END_TEST

START_TEST(a_bare_id_is_refused_with_the_reason)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_kms *kms = NULL;

	ck_assert(cmek_kms_uri_is_bare_id(ID));
	ck_assert(!cmek_kms_uri_is_bare_id("db"));
	ck_assert(!cmek_kms_uri_is_bare_id(ID "0"));
	ck_assert_int_eq(cmek_kms_open(ID, NULL, NULL, &kms, &err), -EINVAL);
	ck_assert_int_eq(err.kind, CMEK_E_USAGE);
	ck_assert_ptr_nonnull(strstr(err.text, "neither in which region nor in which instance"));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("kms_uri");
	TCase *tc = tcase_create("kms_uri");

	tcase_add_loop_test(tc, gcp_names, 0, UNIT_ROWS(gcp_rows));
	tcase_add_test(tc, gcp_version_is_refused_with_the_reason);
	tcase_add_loop_test(tc, ibm_crns, 0, UNIT_ROWS(ibm_rows));
	tcase_add_test(tc, ibm_instance);
	tcase_add_test(tc, a_bare_id_is_refused_with_the_reason);
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
