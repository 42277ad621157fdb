/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The life of a key in Google Cloud KMS. There only versions have states, so what is done to a key here is done to all of
 * its versions that it concerns. It must not know how a request is authorised.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "kms/gcp.h"
#include "kms/gcp_wire.h"

#define PATH_MAX_BYTES 1536
#define PAGES_MAX 200

int cmek_gcp_get_key(struct cmek_gcp *g, struct cmek_kms_info *ret_info, struct cmek_error *err)
{
	struct cmek_http_response resp;
	int rc = cmek_gcp_call(g, "Google Cloud KMS, get the key", "GET", g->name, NULL, 0, &resp, err);

	if (rc == 0)
		rc = cmek_gcp_key_reply(resp.body, resp.body_len, g->name, ret_info, err);
	cmek_http_response_done(&resp);
	return rc;
}

/* All versions, added to info. */
static int get_versions(struct cmek_gcp *g, struct cmek_kms_info *info, struct cmek_error *err)
{
	struct cmek_http_response resp;
	char path[PATH_MAX_BYTES], *next = NULL;
	int rc = 0;

	for (unsigned page = 0; rc == 0 && (page == 0 || next); page++) {
		if (page == PAGES_MAX) {
			rc = cmek_error_set(err, CMEK_E_LIMIT, E2BIG, "%s: the list of versions does not end", g->name);
			break;
		}
		snprintf(path, sizeof(path), "%s/cryptoKeyVersions?pageSize=100%s", g->name, next ? "&pageToken=" : "");
		if (next && !cmek_http_escape(path, sizeof(path), next))
			rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EPROTO, "%s: the token of a page is too long", g->name);
		free(next);
		next = NULL;
		if (rc < 0)
			break;
		rc = cmek_gcp_call(g, "Google Cloud KMS, list the versions", "GET", path, NULL, 0, &resp, err);
		if (rc == 0)
			rc = cmek_gcp_versions_reply(resp.body, resp.body_len, g->name, info, &next, err);
		cmek_http_response_done(&resp);
	}
	free(next);
	return rc;
}

/* Who may use a key need not be allowed to look at it: then nothing is known of its state. */
static int describe_unseen(const struct cmek_gcp *g, struct cmek_kms_info *ret_info, struct cmek_error *err)
{
	struct cmek_kms_info info = { .state = CMEK_KMS_STATE_UNKNOWN };

	info.resolved = strdup(g->name);
	info.remark = strdup("its state may not be seen by these credentials (cloudkms.cryptoKeys.get)");
	if (!info.resolved || !info.remark) {
		cmek_kms_info_done(&info);
		return cmek_error_sys(err, ENOMEM, "describing %s", g->name);
	}
	*ret_info = info;
	return 0;
}

int cmek_gcp_describe(void *state, struct cmek_kms_info *ret_info, struct cmek_error *err)
{
	struct cmek_error failure = CMEK_ERROR_INIT;
	struct cmek_gcp *g = state;
	int rc;

	rc = cmek_cloud_begin(&g->cloud, err);
	if (rc < 0)
		return rc;
	rc = cmek_gcp_get_key(g, ret_info, &failure);
	if (rc < 0 && failure.kind == CMEK_E_DENIED)
		return describe_unseen(g, ret_info, err);
	if (rc == 0)
		rc = get_versions(g, ret_info, &failure);
	if (rc < 0 && failure.kind == CMEK_E_DENIED)
		rc = 0; /* the key, and not the list */
	return rc < 0 ? cmek_error_set(err, failure.kind, failure.err, "%s", failure.text) : 0;
}

/* "projects/P/locations/L/keyRings/R" and "K". */
static const char *split_name(const struct cmek_gcp *g, char ring[PATH_MAX_BYTES])
{
	const char *id = strrchr(g->name, '/') + 1;

	snprintf(ring, PATH_MAX_BYTES, "%.*s", (int)(id - g->name - (ptrdiff_t)strlen("/cryptoKeys/")), g->name);
	return id;
}

int cmek_gcp_create(void *state, const struct cmek_kms_create *how, struct cmek_error *err)
{
	static const char body[] = "{\"purpose\":\"ENCRYPT_DECRYPT\","
				   "\"versionTemplate\":{\"algorithm\":\"GOOGLE_SYMMETRIC_ENCRYPTION\"}}";
	char ring[PATH_MAX_BYTES], path[PATH_MAX_BYTES + 128];
	struct cmek_http_response resp;
	struct cmek_gcp *g = state;
	const char *id;
	int rc;

	if (how->passphrase)
		return cmek_error_set(err, CMEK_E_UNSUPPORTED, EOPNOTSUPP, "keys of Google Cloud KMS have no passphrase");
	rc = cmek_cloud_begin(&g->cloud, err);
	if (rc < 0)
		return rc;
	id = split_name(g, ring);
	snprintf(path, sizeof(path), "%s/cryptoKeys?cryptoKeyId=%s", ring, id);
	rc = cmek_gcp_call(g, "Google Cloud KMS, create a key", "POST", path, body, strlen(body), &resp, err);
	cmek_http_response_done(&resp);
	return rc;
}

/* POSTs to the key or one of its versions, and reads the version that comes back. */
static int post_version(struct cmek_gcp *g, const char *what, const char *method, const char *path, const char *body,
			char **ret_id, int64_t *ret_destroy, struct cmek_error *err)
{
	struct cmek_http_response resp;
	int rc = cmek_gcp_call(g, what, method, path, body, strlen(body), &resp, err);

	if (rc == 0)
		rc = cmek_gcp_version_reply(resp.body, resp.body_len, g->name, ret_id, ret_destroy, err);
	cmek_http_response_done(&resp);
	return rc;
}

int cmek_gcp_rotate(void *state, char **ret_version, struct cmek_error *err)
{
	char path[PATH_MAX_BYTES], body[64], *id = NULL;
	struct cmek_http_response resp;
	struct cmek_gcp *g = state;
	int rc;

	rc = cmek_cloud_begin(&g->cloud, err);
	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "%s/cryptoKeyVersions", g->name);
	rc = post_version(g, "Google Cloud KMS, add a version", "POST", path, "{}", &id, NULL, err);
	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "%s:updatePrimaryVersion", g->name);
	snprintf(body, sizeof(body), "{\"cryptoKeyVersionId\":\"%s\"}", id);
	rc = cmek_gcp_call(g, "Google Cloud KMS, make it the primary version", "POST", path, body, strlen(body), &resp, err);
	cmek_http_response_done(&resp);
	if (rc < 0) {
		cmek_error_prefix(err, "version %s was added and is not primary yet", id);
		free(id);
		return rc;
	}
	*ret_version = id;
	return 0;
}

/* What is done to each version in one of two states. */
struct change {
	enum cmek_kms_state from, or_from;
	const char *what, *method, *behind; /* behind the version's name */
	const char *body;
	const char *none; /* there is no such version */
};

static int change_versions(struct cmek_gcp *g, const struct change *change, int64_t *ret_last, struct cmek_error *err)
{
	struct cmek_kms_info info = { 0 };
	char path[PATH_MAX_BYTES];
	int64_t date, last = 0;
	size_t n = 0;
	int rc;

	rc = cmek_cloud_begin(&g->cloud, err);
	if (rc == 0)
		rc = get_versions(g, &info, err);
	for (size_t i = 0; rc == 0 && i < info.n_versions; i++) {
		const struct cmek_kms_version *v = &info.versions[i];

		if (v->state != change->from && v->state != change->or_from)
			continue;
		snprintf(path, sizeof(path), "%s/cryptoKeyVersions/%s%s", g->name, v->id, change->behind);
		date = 0;
		rc = post_version(g, change->what, change->method, path, change->body, NULL, &date, err);
		if (rc < 0 && n > 0)
			cmek_error_prefix(err, "done for %zu of its versions, not for version %s", n, v->id);
		n++;
		if (date > last)
			last = date;
	}
	cmek_kms_info_done(&info);
	if (rc == 0 && n == 0)
		rc = cmek_error_set(err, CMEK_E_NOT_FOUND, ENOKEY, "%s: %s", g->name, change->none);
	if (rc == 0)
		*ret_last = last;
	return rc;
}

int cmek_gcp_enable(void *state, struct cmek_error *err)
{
	static const struct change change = {
		CMEK_KMS_DISABLED, CMEK_KMS_DISABLED, "Google Cloud KMS, enable a version", "PATCH", "?updateMask=state",
		"{\"state\":\"ENABLED\"}", "no version is disabled",
	};
	int64_t none;

	return change_versions(state, &change, &none, err);
}

int cmek_gcp_disable(void *state, struct cmek_error *err)
{
	static const struct change change = {
		CMEK_KMS_ENABLED, CMEK_KMS_ENABLED, "Google Cloud KMS, disable a version", "PATCH", "?updateMask=state",
		"{\"state\":\"DISABLED\"}", "no version is enabled",
	};
	int64_t none;

	return change_versions(state, &change, &none, err);
}

int cmek_gcp_schedule_deletion(void *state, unsigned days, int64_t *ret_date, struct cmek_error *err)
{
	static const struct change change = {
		CMEK_KMS_ENABLED, CMEK_KMS_DISABLED, "Google Cloud KMS, destroy a version", "POST", ":destroy", "{}",
		"no version is left that could be destroyed",
	};

	if (days != CMEK_KMS_DAYS_DEFAULT)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "Google Cloud KMS destroys after the time that was set when the key was made "
				      "(destroyScheduledDuration, 30 days by default): days can't be given");
	return change_versions(state, &change, ret_date, err);
}

int cmek_gcp_cancel_deletion(void *state, struct cmek_error *err)
{
	static const struct change change = {
		CMEK_KMS_PENDING_DELETION, CMEK_KMS_PENDING_DELETION, "Google Cloud KMS, restore a version", "POST",
		":restore", "{}", "no version is to be destroyed",
	};
	int64_t none;

	return change_versions(state, &change, &none, err);
}

int cmek_gcp_identity(void *state, char **ret_text, struct cmek_error *err)
{
	struct cmek_gcp *g = state;
	int rc = cmek_cloud_begin(&g->cloud, err);

	return rc < 0 ? rc : cmek_gcp_token_identity(g->tokens, ret_text, err);
}

/* ---- policy ---- */

/* A principal as IAM names it, from what a user says; it becomes part of commands and JSON. */
static int member_of(const char *who, char **ret_member, struct cmek_error *err)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_@:/%+";
	static const char suffix[] = ".gserviceaccount.com";
	size_t len = strlen(who);
	bool bare = !strchr(who, ':') && len > strlen(suffix) && !strcmp(who + len - strlen(suffix), suffix);

	if (strspn(who, alphabet) != len || (!bare && !strchr(who, ':')))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "'%.200s' is not a principal: expected serviceAccount:EMAIL, user:EMAIL, group:EMAIL or "
				      "principal://...",
				      who);
	if (asprintf(ret_member, "%s%s", bare ? "serviceAccount:" : "", who) < 0)
		return cmek_error_sys(err, ENOMEM, "a policy");
	return 0;
}

/* The guide's part on the account that is acted as; "" without one. */
static int impersonation_guide(const struct cmek_gcp *g, const char *member, char **ret_text, struct cmek_error *err)
{
	int n;

	if (!g->principal)
		n = asprintf(ret_text, "%s", "");
	else
		n = asprintf(ret_text,
			     "Who mounts acts as that account, and must be allowed to:\n"
			     "  gcloud iam service-accounts add-iam-policy-binding %s \\\n"
			     "      --role=roles/iam.serviceAccountTokenCreator --member=%s\n",
			     g->principal, member);
	return n < 0 ? cmek_error_sys(err, ENOMEM, "a policy for %s", g->name) : 0;
}

int cmek_gcp_policy(void *state, const struct cmek_kms_policy_wish *wish, struct cmek_kms_policy *ret_policy,
		    struct cmek_error *err)
{
	struct cmek_gcp *g = state;
	const char *role = wish->create ? "roles/cloudkms.cryptoKeyEncrypterDecrypter" : "roles/cloudkms.cryptoKeyDecrypter";
	char *caller = NULL, *account = NULL, *acting = NULL;
	const char *member;
	int rc;

	rc = member_of(wish->member ? wish->member : "serviceAccount:NAME@PROJECT.iam.gserviceaccount.com", &caller, err);
	if (rc == 0 && g->principal)
		rc = member_of(g->principal, &account, err);
	if (rc == 0)
		rc = impersonation_guide(g, caller, &acting, err);
	if (rc < 0)
		goto out;
	member = account ? account : caller;
	if (asprintf(&ret_policy->document,
		     "{\n  \"bindings\": [\n    {\n      \"role\": \"%s\",\n      \"members\": [\"%s\"]\n    }\n  ]\n}", role,
		     member) < 0) {
		ret_policy->document = NULL;
		rc = cmek_error_sys(err, ENOMEM, "a policy for %s", g->name);
		goto out;
	}
	if (asprintf(&ret_policy->guide,
		     "Add this to the key's policy:\n"
		     "  gcloud kms keys add-iam-policy-binding %s \\\n"
		     "      --role=%s --member=%s\n"
		     "%s"
		     "So that the key's state can be shown, too (optional):\n"
		     "  gcloud kms keys add-iam-policy-binding %s \\\n"
		     "      --role=roles/cloudkms.viewer --member=%s\n"
		     "%s"
		     "%s",
		     g->name, role, member, acting, g->name, member,
		     wish->create ? "" :
				    "Rewrapping a volume's key under a new version wants to encrypt, too: see --create.\n",
		     wish->n_volumes ? "Google Cloud IAM can not tell volumes apart (it does not see what a wrap is bound "
				       "to):\nthis allows all volumes of the key. Use a key of its own for each." :
				       "Any volume of the key can be opened with it.") < 0) {
		ret_policy->guide = NULL;
		rc = cmek_error_sys(err, ENOMEM, "a policy for %s", g->name);
	}
out:
	free(acting);
	free(account);
	free(caller);
	return rc;
}
