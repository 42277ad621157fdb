/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The life of a key in IBM Key Protect: state, versions, rotation, deletion with its rules, what is registered as using
 * it, the policy of who mounts. It must not know how a request is authorised.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kms/ibm.h"
#include "kms/ibm_wire.h"

#define PAGE 200
#define PAGES_MAX 500

/* One page of a list of the key's: list is "versions" or "registrations". */
static int get_page(struct cmek_ibm *k, const char *what, const char *list, unsigned page,
		    struct cmek_http_response *ret_resp, struct cmek_error *err)
{
	char path[160];
	struct cmek_ibm_request want = { .what = what, .method = "GET", .path = path };

	snprintf(path, sizeof(path), "keys/%s/%s?limit=%d&offset=%u", k->id.key, list, PAGE, page * PAGE);
	return cmek_ibm_call(k, &want, ret_resp, err);
}

static int endless(const struct cmek_ibm *k, const char *list, struct cmek_error *err)
{
	return cmek_error_set(err, CMEK_E_LIMIT, E2BIG, "%s: the list of %s does not end", k->crn, list);
}

static int get_versions(struct cmek_ibm *k, struct cmek_kms_info *info, struct cmek_error *err)
{
	struct cmek_http_response resp;
	size_t n = PAGE;
	int rc = 0;

	for (unsigned page = 0; rc == 0 && n == PAGE; page++) {
		if (page == PAGES_MAX)
			return endless(k, "versions", err);
		rc = get_page(k, "IBM Key Protect, list versions", "versions", page, &resp, err);
		if (rc == 0)
			rc = cmek_ibm_versions_reply(resp.body, resp.body_len, info, &n, err);
		cmek_http_response_done(&resp);
	}
	return rc;
}

int cmek_ibm_describe(void *state, struct cmek_kms_info *ret_info, struct cmek_error *err)
{
	struct cmek_ibm *k = state;
	int rc;

	rc = cmek_cloud_begin(&k->cloud, err);
	if (rc == 0)
		rc = cmek_ibm_get_key(k, ret_info, err);
	/* A deleted key has no versions to show. */
	if (rc == 0 && ret_info->state != CMEK_KMS_PENDING_DELETION && ret_info->state != CMEK_KMS_DESTROYED)
		rc = get_versions(k, ret_info, err);
	return rc;
}

int cmek_ibm_registrations(void *state, struct cmek_kms_registration **ret_regs, size_t *ret_n, struct cmek_error *err)
{
	struct cmek_kms_registration *regs = NULL;
	struct cmek_http_response resp;
	struct cmek_ibm *k = state;
	size_t n = 0, on_page = PAGE;
	int rc;

	rc = cmek_cloud_begin(&k->cloud, err);
	for (unsigned page = 0; rc == 0 && on_page == PAGE; page++) {
		if (page == PAGES_MAX) {
			rc = endless(k, "registrations", err);
			break;
		}
		rc = get_page(k, "IBM Key Protect, list registrations", "registrations", page, &resp, err);
		if (rc == 0)
			rc = cmek_ibm_registrations_reply(resp.body, resp.body_len, &regs, &n, &on_page, err);
		cmek_http_response_done(&resp);
	}
	if (rc < 0) {
		for (size_t i = 0; i < n; i++)
			cmek_kms_registration_done(&regs[i]);
		free(regs);
		return rc;
	}
	*ret_regs = regs;
	*ret_n = n;
	return 0;
}

/* A request about the key whose answer has nothing to read. behind: what follows the key's id in the path. */
static int send_order(struct cmek_ibm *k, const char *what, const char *method, const char *behind, struct cmek_error *err)
{
	struct cmek_http_response resp;
	char path[128];
	struct cmek_ibm_request want = { .what = what, .method = method, .path = path };
	int rc;

	if (!strcmp(method, "POST")) {
		want.type = "application/vnd.ibm.kms.key_action+json";
		want.body = "{}";
		want.body_len = 2;
	}
	snprintf(path, sizeof(path), "keys/%s%s", k->id.key, behind);
	rc = cmek_ibm_call(k, &want, &resp, err);
	cmek_http_response_done(&resp);
	return rc;
}

/* A root key in the instance; from then on the handle is that key's. */
int cmek_ibm_create(void *state, const struct cmek_kms_create *how, struct cmek_error *err)
{
	struct cmek_ibm_request want = {
		.what = "IBM Key Protect, create a key",
		.method = "POST",
		.path = "keys",
		.type = "application/vnd.ibm.kms.key+json",
		.prefer = "return=minimal",
	};
	struct cmek_http_response resp = { 0 };
	char *body = NULL, *crn = NULL;
	struct cmek_ibm *k = state;
	struct cmek_kms_crn id;
	json_t *json;
	int rc;

	if (how->passphrase || how->multi_region)
		return cmek_error_set(err, CMEK_E_UNSUPPORTED, EOPNOTSUPP,
				      "keys of IBM Key Protect have neither a passphrase nor replicas");
	if (k->id.key[0] != '\0')
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "IBM Key Protect gives a new key its id: give the CRN of the instance that it shall be made "
				      "in (crn:v1:bluemix:public:kms:REGION:a/ACCOUNT:INSTANCE::)");
	json = json_pack("{s:{s:s, s:i}, s:[{s:s, s:s, s:b}]}", "metadata", "collectionType",
			 "application/vnd.ibm.kms.key+json", "collectionTotal", 1, "resources", "type",
			 "application/vnd.ibm.kms.key+json", "name", how->name ? how->name : "cmekfs", "extractable", 0);
	body = json ? json_dumps(json, JSON_COMPACT) : NULL;
	json_decref(json);
	rc = body ? cmek_cloud_begin(&k->cloud, err) : cmek_error_sys(err, ENOMEM, "creating a key");
	if (rc < 0)
		goto out;
	want.body = body;
	want.body_len = strlen(body);
	rc = cmek_ibm_call(k, &want, &resp, err);
	if (rc == 0)
		rc = cmek_ibm_create_reply(resp.body, resp.body_len, &crn, err);
	if (rc == 0)
		rc = cmek_kms_uri_ibm(crn, &id, err);
	if (rc == 0 && (strcmp(id.instance, k->id.instance) != 0 || strcmp(id.region, k->id.region) != 0))
		rc = cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG, "another instance answered than %s, which was asked", k->crn);
	if (rc < 0)
		goto out;
	k->id = id;
	free(k->crn);
	k->crn = crn;
	crn = NULL;
out:
	cmek_http_response_done(&resp);
	free(crn);
	free(body);
	return rc;
}

int cmek_ibm_rotate(void *state, char **ret_version, struct cmek_error *err)
{
	struct cmek_kms_info info = { 0 };
	struct cmek_ibm *k = state;
	int rc;

	rc = cmek_cloud_begin(&k->cloud, err);
	if (rc == 0)
		rc = send_order(k, "IBM Key Protect, rotate", "POST", "/actions/rotate", err);
	if (rc < 0)
		return rc;
	/* It is rotated, whether its metadata can be read or not. */
	if (cmek_ibm_get_key(k, &info, NULL) == 0) {
		*ret_version = info.primary_version;
		info.primary_version = NULL;
	}
	cmek_kms_info_done(&info);
	return 0;
}

int cmek_ibm_enable(void *state, struct cmek_error *err)
{
	struct cmek_ibm *k = state;
	int rc = cmek_cloud_begin(&k->cloud, err);

	return rc < 0 ? rc : send_order(k, "IBM Key Protect, enable", "POST", "/actions/enable", err);
}

int cmek_ibm_disable(void *state, struct cmek_error *err)
{
	struct cmek_ibm *k = state;
	int rc = cmek_cloud_begin(&k->cloud, err);

	return rc < 0 ? rc : send_order(k, "IBM Key Protect, disable", "POST", "/actions/disable", err);
}

static int delete_key(struct cmek_ibm *k, const char *behind, int64_t *ret_date, struct cmek_error *err)
{
	struct cmek_kms_info info = { 0 };
	int rc;

	rc = cmek_cloud_begin(&k->cloud, err);
	if (rc == 0)
		rc = send_order(k, "IBM Key Protect, delete", "DELETE", behind, err);
	if (rc < 0)
		return rc;
	if (cmek_ibm_get_key(k, &info, NULL) == 0)
		*ret_date = info.deletion_date;
	cmek_kms_info_done(&info);
	return 0;
}

int cmek_ibm_schedule_deletion(void *state, unsigned days, int64_t *ret_date, struct cmek_error *err)
{
	if (days != CMEK_KMS_DAYS_DEFAULT)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "IBM Key Protect deletes at once and can restore for 30 days: days can't be given");
	return delete_key(state, "", ret_date, err);
}

int cmek_ibm_force_deletion(void *state, int64_t *ret_date, struct cmek_error *err)
{
	return delete_key(state, "?force=true", ret_date, err);
}

int cmek_ibm_cancel_deletion(void *state, struct cmek_error *err)
{
	struct cmek_ibm *k = state;
	int rc = cmek_cloud_begin(&k->cloud, err);

	return rc < 0 ? rc : send_order(k, "IBM Key Protect, restore", "POST", "/restore", err);
}

int cmek_ibm_identity(void *state, char **ret_text, struct cmek_error *err)
{
	struct cmek_ibm *k = state;
	int rc = cmek_cloud_begin(&k->cloud, err);

	return rc < 0 ? rc : cmek_ibm_iam_identity(k->iam, ret_text, err);
}

/* ---- policy ---- */

/* The account in "...:a/ACCOUNT:...", whose form was checked when the key was opened. */
static const char *account_of(const struct cmek_ibm *k, int *ret_len)
{
	const char *s = strstr(k->crn, ":a/") + strlen(":a/");

	*ret_len = (int)strcspn(s, ":");
	return s;
}

int cmek_ibm_policy(void *state, const struct cmek_kms_policy_wish *wish, struct cmek_kms_policy *ret_policy,
		    struct cmek_error *err)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_@";
	struct cmek_ibm *k = state;
	bool to_profile = k->profile || (wish->member && !strncmp(wish->member, "Profile-", 8));
	const char *who = k->profile ? k->profile : wish->member ? wish->member : "ServiceId-ID";
	const char *account;
	int account_len;

	if (k->id.key[0] == '\0')
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "%s names an instance, not a key in it", k->crn);
	if (strspn(who, alphabet) != strlen(who))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "'%.200s' is not a principal: expected a service id (ServiceId-...) or a trusted profile "
				      "(Profile-...)",
				      who);
	account = account_of(k, &account_len);
	if (asprintf(&ret_policy->document,
		     "{\n"
		     "  \"type\": \"access\",\n"
		     "  \"subjects\": [{\"attributes\": [{\"name\": \"iam_id\", \"value\": \"iam-%s\"}]}],\n"
		     "  \"roles\": [{\"role_id\": \"crn:v1:bluemix:public:iam::::serviceRole:Reader\"}],\n"
		     "  \"resources\": [{\"attributes\": [\n"
		     "    {\"name\": \"accountId\", \"value\": \"%.*s\"},\n"
		     "    {\"name\": \"serviceName\", \"value\": \"kms\"},\n"
		     "    {\"name\": \"serviceInstance\", \"value\": \"%s\"},\n"
		     "    {\"name\": \"resourceType\", \"value\": \"key\"},\n"
		     "    {\"name\": \"resource\", \"value\": \"%s\"}\n"
		     "  ]}]\n"
		     "}",
		     who, account_len, account, k->id.instance, k->id.key) < 0) {
		ret_policy->document = NULL;
		return cmek_error_sys(err, ENOMEM, "a policy for %s", k->crn);
	}
	if (asprintf(&ret_policy->guide,
		     "Give the role Reader on this one key; it opens volumes, makes them and rewraps:\n"
		     "  ibmcloud iam %s %s --roles Reader \\\n"
		     "      --service-name kms --service-instance %s \\\n"
		     "      --resource-type key --resource %s\n"
		     "%s",
		     to_profile ? "trusted-profile-policy-create" : "service-policy-create", who, k->id.instance, k->id.key,
		     wish->n_volumes ? "IBM Cloud IAM can not tell volumes apart (it does not see what a wrap is bound to):\n"
				       "this allows all volumes of the key. Use a key of its own for each." :
				       "Any volume of the key can be opened with it.") < 0) {
		ret_policy->guide = NULL;
		return cmek_error_sys(err, ENOMEM, "a policy for %s", k->crn);
	}
	return 0;
}
