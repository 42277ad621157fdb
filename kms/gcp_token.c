/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Application default credentials of Google Cloud: finds them, and makes access tokens of them. It must not know what the
 * tokens are used for. Nothing of a credentials file is kept: it is read anew for each token.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/text.h"
#include "kms/cred_file.h"
#include "kms/gcp_token.h"
#include "kms/gcp_wire.h"
#include "kms/json.h"

#define SCOPE "https://www.googleapis.com/auth/cloud-platform"
#define TOKEN_URL "https://oauth2.googleapis.com/token"
#define IAM_URL "https://iamcredentials.googleapis.com"
#define METADATA_HOST "metadata.google.internal"
#define METADATA_TIMEOUT_MS 3000
#define METADATA_ATTEMPTS 3
#define LIFE_S 3600
#define CREDENTIALS_MAX_BYTES 65536
#define BODY_MAX_BYTES 65536
#define URL_MAX_BYTES 512
#define ADC_FILE "application_default_credentials.json"

struct cmek_gcp_token {
	struct cmek_cloud *cloud;
	char *impersonate;   /* NULL = nobody */
	char *quota_project; /* NULL = not told */
	bool quota_known;    /* it was looked for */
	char *name;          /* in the token cache, NULL before the first token */
	char who[256];       /* whose token was fetched last */
};

int cmek_gcp_token_new(struct cmek_cloud *cloud, const char *impersonate, struct cmek_gcp_token **ret_source,
		       struct cmek_error *err)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_@";
	struct cmek_gcp_token *source;

	if (impersonate && (strlen(impersonate) > 200 || strspn(impersonate, alphabet) != strlen(impersonate) ||
			    !strchr(impersonate, '@')))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "'%.200s' is not the e-mail address of a service account",
				      impersonate);
	source = calloc(1, sizeof(*source));
	if (!source)
		return cmek_error_sys(err, ENOMEM, "preparing for Google Cloud");
	source->cloud = cloud;
	if (impersonate) {
		source->impersonate = strdup(impersonate);
		if (!source->impersonate) {
			free(source);
			return cmek_error_sys(err, ENOMEM, "preparing for Google Cloud");
		}
	}
	*ret_source = source;
	return 0;
}

void cmek_gcp_token_free(struct cmek_gcp_token *source)
{
	if (!source)
		return;
	free(source->impersonate);
	free(source->quota_project);
	free(source->name);
	free(source);
}

const char *cmek_gcp_token_quota_project(const struct cmek_gcp_token *source)
{
	return source->quota_project;
}

static const char *env(const char *name)
{
	const char *value = getenv(name);

	return value && value[0] ? value : NULL;
}

/* ---- requests ---- */

static int post(struct cmek_gcp_token *source, const char *what, const char *url, const char *type,
		const struct cmek_secret *bearer, const char *body, struct cmek_http_response *ret_resp,
		struct cmek_error *err)
{
	struct cmek_http_request req = {
		.service = CMEK_KMS_SERVICE_GCP,
		.what = what,
		.settings = &source->cloud->settings,
		.method = "POST",
		.url = url,
		.headers = { { .name = "Content-Type", .value = type } },
		.body = body,
		.body_len = strlen(body),
		.read_problem = cmek_gcp_read_problem,
	};

	if (bearer)
		req.headers[1] =
			(struct cmek_http_header){ .name = "Authorization", .secret = bearer, .secret_prefix = "Bearer " };
	return cmek_http_call(source->cloud->http, &req, ret_resp, err);
}

/* Posts a form to a token endpoint. */
static int post_form(struct cmek_gcp_token *source, const char *what, const char *url, const struct cmek_secret *form,
		     struct cmek_secret **ret_token, int64_t *ret_expires, struct cmek_error *err)
{
	int64_t now = cmek_http_time(source->cloud->http);
	struct cmek_http_response resp;
	int rc;

	rc = post(source, what, url, "application/x-www-form-urlencoded", NULL,
		  (const char *)cmek_secret_bytes(form, CMEK_KEY_TEXT), &resp, err);
	if (rc == 0)
		rc = cmek_cloud_token_reply(&resp, what, "access_token", "expires_in", now, ret_token, ret_expires, err);
	cmek_http_response_done(&resp);
	return rc;
}

/* ---- kinds of credentials ---- */

static int append_b64url(struct cmek_secret *out, const void *bytes, size_t len, const char *behind,
			 struct cmek_error *err)
{
	struct cmek_secret *text = NULL;
	int rc = cmek_secret_new(CMEK_KEY_TEXT, CMEK_B64URL_LEN(len) + 1, &text, err);

	if (rc == 0) {
		cmek_b64url_encode(bytes, len, (char *)cmek_secret_fill(text, CMEK_KEY_TEXT));
		rc = cmek_cloud_append(out, (const char *)cmek_secret_bytes(text, CMEK_KEY_TEXT), false, err);
	}
	if (rc == 0)
		rc = cmek_cloud_append(out, behind, false, err);
	cmek_secret_free(text);
	return rc;
}

/* Takes the JSON, which may be NULL for want of memory. */
static int append_json(struct cmek_secret *out, json_t *json, const char *behind, struct cmek_error *err)
{
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	int rc;

	if (text)
		rc = append_b64url(out, text, strlen(text), behind, err);
	else
		rc = cmek_error_sys(err, ENOMEM, "making a signed token");
	free(text);
	json_decref(json);
	return rc;
}

int cmek_gcp_token_assertion(const char *email, const char *key_id, const char *audience, const struct cmek_secret *pem,
			     int64_t now, struct cmek_secret **ret_assertion, struct cmek_error *err)
{
	struct cmek_secret *out = NULL;
	uint8_t sig[CMEK_RSA_SIG_MAX];
	size_t sig_len = 0, signed_len;
	char *text;
	int rc;

	rc = cmek_secret_new(CMEK_KEY_TEXT, BODY_MAX_BYTES, &out, err);
	if (rc < 0)
		return rc;
	text = (char *)cmek_secret_fill(out, CMEK_KEY_TEXT);
	rc = append_json(out, json_pack("{s:s, s:s, s:s*}", "alg", "RS256", "typ", "JWT", "kid", key_id), ".", err);
	if (rc == 0)
		rc = append_json(out, json_pack("{s:s, s:s, s:s, s:I, s:I}", "iss", email, "scope", SCOPE, "aud", audience,
						"iat", (json_int_t)now, "exp", (json_int_t)(now + LIFE_S)), "", err);
	signed_len = strlen(text);
	if (rc == 0) {
		rc = cmek_rs256_sign(pem, text, signed_len, sig, &sig_len, err);
		if (rc < 0)
			cmek_error_prefix(err, "the private key of %.200s", email);
	}
	if (rc == 0)
		rc = cmek_cloud_append(out, ".", false, err);
	if (rc == 0)
		rc = append_b64url(out, sig, sig_len, "", err);
	if (rc == 0)
		rc = cmek_secret_new_copy(CMEK_KEY_TEXT, text, strlen(text), ret_assertion, err);
	cmek_secret_free(out);
	return rc;
}

/* The member if it is there, else fallback. */
static int text_or(const struct cmek_json_at *at, const char *name, const char *fallback, const char **ret_text,
		   struct cmek_error *err)
{
	*ret_text = fallback;
	return cmek_json_has(at, name) ? cmek_json_string(at, name, ret_text, err) : 0;
}

static int by_service_account(struct cmek_gcp_token *source, const struct cmek_json_at *at,
			      struct cmek_secret **ret_token, int64_t *ret_expires, struct cmek_error *err)
{
	struct cmek_secret *pem = NULL, *assertion = NULL, *form = NULL;
	const char *email = NULL, *key_id = NULL, *url = NULL;
	int rc;

	rc = cmek_json_string(at, "client_email", &email, err);
	if (rc == 0)
		rc = text_or(at, "private_key_id", NULL, &key_id, err);
	if (rc == 0)
		rc = text_or(at, "token_uri", TOKEN_URL, &url, err);
	if (rc == 0)
		rc = cmek_json_secret(at, "private_key", &pem, err);
	if (rc == 0)
		rc = cmek_gcp_token_assertion(email, key_id, url, pem, cmek_http_time(source->cloud->http), &assertion,
					      err);
	if (rc == 0)
		rc = cmek_secret_new(CMEK_KEY_TEXT, BODY_MAX_BYTES, &form, err);
	if (rc == 0)
		rc = cmek_cloud_append(form, "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=",
				       false, err);
	if (rc == 0)
		rc = cmek_cloud_append(form, (const char *)cmek_secret_bytes(assertion, CMEK_KEY_TEXT), true, err);
	if (rc == 0)
		rc = post_form(source, "Google Cloud, token of a service account", url, form, ret_token, ret_expires, err);
	if (rc < 0 && email)
		cmek_error_prefix(err, "service account %.200s", email);
	else if (rc == 0)
		snprintf(source->who, sizeof(source->who), "service account %.200s", email);
	cmek_secret_free(form);
	cmek_secret_free(assertion);
	cmek_secret_free(pem);
	return rc;
}

static int by_authorized_user(struct cmek_gcp_token *source, const struct cmek_json_at *at,
			      struct cmek_secret **ret_token, int64_t *ret_expires, struct cmek_error *err)
{
	static const char *const members[] = { "client_id", "client_secret", "refresh_token" };
	struct cmek_secret *form = NULL;
	const char *url = NULL, *value = NULL;
	int rc;

	rc = text_or(at, "token_uri", TOKEN_URL, &url, err);
	if (rc == 0)
		rc = cmek_secret_new(CMEK_KEY_TEXT, BODY_MAX_BYTES, &form, err);
	if (rc == 0)
		rc = cmek_cloud_append(form, "grant_type=refresh_token", false, err);
	for (size_t i = 0; rc == 0 && i < sizeof(members) / sizeof(members[0]); i++) {
		rc = cmek_json_string(at, members[i], &value, err);
		if (rc == 0)
			rc = cmek_cloud_append(form, "&", false, err);
		if (rc == 0)
			rc = cmek_cloud_append(form, members[i], false, err);
		if (rc == 0)
			rc = cmek_cloud_append(form, "=", false, err);
		if (rc == 0)
			rc = cmek_cloud_append(form, value, true, err);
	}
	if (rc == 0)
		rc = post_form(source, "Google Cloud, token of a user", url, form, ret_token, ret_expires, err);
	if (rc == 0)
		snprintf(source->who, sizeof(source->who), "a user of gcloud");
	cmek_secret_free(form);
	return rc;
}

/* {"accessToken", "expireTime"}: made the shape of the other answers, a token and its seconds. */
static int impersonation_reply(const struct cmek_http_response *resp, const char *what, struct cmek_secret **ret_token,
			       int64_t *ret_expires, struct cmek_error *err)
{
	struct cmek_secret *token = NULL;
	struct cmek_json_at at;
	json_t *json = NULL;
	int64_t expires = 0;
	int rc = cmek_json_parse(resp->body, resp->body_len, what, &json, err);

	if (rc < 0)
		return rc;
	at = cmek_json_root(json, what);
	rc = cmek_json_opt_time(&at, "expireTime", &expires, err);
	if (rc == 0)
		rc = cmek_cloud_token_of(&at, "accessToken", &token, err);
	json_decref(json);
	if (rc < 0)
		return rc;
	*ret_token = token;
	*ret_expires = expires;
	return 0;
}

/* A token of the account that the URL names, for the holder of another one. */
static int impersonate_at(struct cmek_gcp_token *source, const char *url, const struct cmek_secret *bearer,
			  struct cmek_secret **ret_token, int64_t *ret_expires, struct cmek_error *err)
{
	static const char what[] = "Google Cloud IAM, impersonation";
	struct cmek_http_response resp;
	int rc;

	rc = post(source, what, url, "application/json", bearer, "{\"scope\":[\"" SCOPE "\"],\"lifetime\":\"3600s\"}",
		  &resp, err);
	if (rc == 0)
		rc = impersonation_reply(&resp, what, ret_token, ret_expires, err);
	cmek_http_response_done(&resp);
	return rc;
}

static int by_file(struct cmek_gcp_token *source, const struct cmek_json_at *at, bool nested,
		   struct cmek_secret **ret_token, int64_t *ret_expires, struct cmek_error *err);

static int by_impersonation(struct cmek_gcp_token *source, const struct cmek_json_at *at, struct cmek_secret **ret_token,
			    int64_t *ret_expires, struct cmek_error *err)
{
	struct cmek_secret *bearer = NULL;
	struct cmek_json_at inner;
	const char *url = NULL;
	int64_t expires;
	int rc;

	rc = cmek_json_string(at, "service_account_impersonation_url", &url, err);
	if (rc == 0)
		rc = cmek_json_object(at, "source_credentials", &inner, err);
	if (rc == 0)
		rc = by_file(source, &inner, true, &bearer, &expires, err);
	if (rc == 0)
		rc = impersonate_at(source, url, bearer, ret_token, ret_expires, err);
	if (rc == 0) {
		const char *account = strstr(url, "/serviceAccounts/");
		size_t used = strlen(source->who);

		snprintf(source->who + used, sizeof(source->who) - used, ", acting as %.100s",
			 account ? account + strlen("/serviceAccounts/") : url);
	}
	cmek_secret_free(bearer);
	return rc;
}

static int by_file(struct cmek_gcp_token *source, const struct cmek_json_at *at, bool nested,
		   struct cmek_secret **ret_token, int64_t *ret_expires, struct cmek_error *err)
{
	const char *type = NULL;
	int rc = cmek_json_string(at, "type", &type, err);

	if (rc < 0)
		return rc;
	if (!strcmp(type, "service_account"))
		return by_service_account(source, at, ret_token, ret_expires, err);
	if (!strcmp(type, "authorized_user"))
		return by_authorized_user(source, at, ret_token, ret_expires, err);
	if (!strcmp(type, "impersonated_service_account") && !nested)
		return by_impersonation(source, at, ret_token, ret_expires, err);
	if (!strcmp(type, "external_account") || !strcmp(type, "external_account_authorized_user"))
		return cmek_error_set(err, CMEK_E_UNSUPPORTED, EOPNOTSUPP,
				      "credentials of type '%s' (workload identity federation) are not supported: give those of a "
				      "service account, or let the machine's metadata server give tokens", type);
	return cmek_error_set(err, CMEK_E_UNSUPPORTED, EPROTONOSUPPORT,
			      "credentials of type '%.60s'%s: expected service_account, authorized_user%s", type,
			      nested ? " as source of others" : "", nested ? "" : " or impersonated_service_account");
}

/* Somebody said that there is a metadata server. */
static bool metadata_named(const struct cmek_gcp_token *source)
{
	return cmek_cloud_text(source->cloud, "metadata_endpoint") || env("GCE_METADATA_HOST") || env("GCE_METADATA_IP");
}

static int by_metadata(struct cmek_gcp_token *source, const char *base, struct cmek_secret **ret_token,
		       int64_t *ret_expires, struct cmek_error *err)
{
	static const char what[] = "Google Cloud, metadata server";
	int64_t now = cmek_http_time(source->cloud->http);
	struct cmek_error failure = CMEK_ERROR_INIT;
	char url[URL_MAX_BYTES], flavor[16];
	struct cmek_http_response resp;
	struct cmek_http_request req = {
		.service = CMEK_KMS_SERVICE_GCP,
		.what = what,
		.settings = &source->cloud->settings,
		.method = "GET",
		.url = url,
		.headers = { { .name = "Metadata-Flavor", .value = "Google" } },
		.metadata = true,
		.timeout_ms = METADATA_TIMEOUT_MS,
		.attempts = METADATA_ATTEMPTS,
	};
	int rc;

	if ((size_t)snprintf(url, sizeof(url), "%s/computeMetadata/v1/instance/service-accounts/default/token", base) >=
	    sizeof(url))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "%s: the endpoint's URL is too long", what);
	rc = cmek_http_call(source->cloud->http, &req, &resp, &failure);
	if (rc < 0 && resp.status == 404)
		rc = cmek_error_set(err, CMEK_E_EXPIRED, ENOKEY, "this machine has no service account: %s", failure.text);
	else if (rc < 0 && resp.status == 0 && failure.kind == CMEK_E_UNREACHABLE && !metadata_named(source))
		rc = cmek_error_set(err, CMEK_E_EXPIRED, ENOKEY, "this seems to be no machine of Google Cloud: %s", failure.text);
	else if (rc < 0)
		rc = cmek_error_set(err, failure.kind, failure.err, "%s", failure.text);
	/* Something else that answers there (a captive portal) does not say this. */
	if (rc == 0 && (!cmek_http_header_of(&resp, "metadata-flavor", flavor, sizeof(flavor)) || strcmp(flavor, "Google")))
		rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EPROTO, "%s: what answers at %s is not a metadata server", what,
				    base);
	if (rc == 0)
		rc = cmek_cloud_token_reply(&resp, what, "access_token", "expires_in", now, ret_token, ret_expires, err);
	if (rc == 0)
		snprintf(source->who, sizeof(source->who), "the service account of this machine");
	cmek_http_response_done(&resp);
	return rc;
}

/* ---- where they are ---- */

/* gcloud's own file: malloced, NULL when there is none (or no memory). */
static char *gcloud_file(void)
{
	const char *dir = env("CLOUDSDK_CONFIG"), *home = env("HOME");
	char *path = NULL;
	int n;

	if (!dir && !home)
		return NULL;
	n = dir ? asprintf(&path, "%s/" ADC_FILE, dir) : asprintf(&path, "%s/.config/gcloud/" ADC_FILE, home);
	if (n < 0)
		return NULL;
	if (access(path, F_OK) == 0)
		return path;
	free(path);
	return NULL;
}

/* The file with credentials: malloced, or NULL: then it is the metadata server. */
static int find_file(const struct cmek_gcp_token *source, char **ret_path, struct cmek_error *err)
{
	const char *given = cmek_cloud_text(source->cloud, "credentials_file");

	if (!given)
		given = env("GOOGLE_APPLICATION_CREDENTIALS");
	if (given) {
		*ret_path = strdup(given);
		return *ret_path ? 0 : cmek_error_sys(err, ENOMEM, "looking for credentials");
	}
	*ret_path = cmek_cred_systemd("gcp-credentials.json");
	if (!*ret_path)
		*ret_path = gcloud_file();
	return 0;
}

static int metadata_base(const struct cmek_gcp_token *source, char base[URL_MAX_BYTES], struct cmek_error *err)
{
	const char *url = cmek_cloud_text(source->cloud, "metadata_endpoint"), *host = env("GCE_METADATA_HOST");
	int n;

	if (!host)
		host = env("GCE_METADATA_IP");
	n = url ? snprintf(base, URL_MAX_BYTES, "%s", url) :
		  snprintf(base, URL_MAX_BYTES, "http://%s", host ? host : METADATA_HOST);
	return n < URL_MAX_BYTES ? 0 : cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the metadata server's URL is too long");
}

/* ---- one token ---- */

struct fetch {
	struct cmek_gcp_token *source;
	const char *file; /* NULL = the metadata server at base */
	const char *base;
};

static int fetch_by_file(const struct fetch *f, struct cmek_secret **ret_token, int64_t *ret_expires,
			 struct cmek_error *err)
{
	struct cmek_secret *text = NULL;
	struct cmek_json_at at;
	json_t *json = NULL;
	int rc;

	rc = cmek_cred_file_read(f->file, CREDENTIALS_MAX_BYTES, &text, err);
	if (rc < 0)
		return rc;
	rc = cmek_json_parse(cmek_secret_bytes(text, CMEK_KEY_TEXT), cmek_secret_len(text), f->file, &json, err);
	cmek_secret_free(text);
	if (rc < 0)
		return rc;
	at = cmek_json_root(json, f->file);
	rc = by_file(f->source, &at, false, ret_token, ret_expires, err);
	if (rc == -EOPNOTSUPP || rc == -EPROTONOSUPPORT)
		cmek_error_prefix(err, "%s", f->file);
	json_decref(json);
	return rc;
}

static int fetch(void *arg, struct cmek_secret **ret_token, int64_t *ret_expires, struct cmek_error *err)
{
	static const char *const no_variables[] = { NULL };
	const struct fetch *f = arg;
	struct cmek_gcp_token *source = f->source;
	struct cmek_secret *own = NULL;
	char url[URL_MAX_BYTES];
	const char *iam;
	int64_t expires = 0;
	int rc;

	if (f->file)
		rc = fetch_by_file(f, &own, &expires, err);
	else
		rc = by_metadata(source, f->base, &own, &expires, err);
	if (rc < 0 && !f->file)
		cmek_error_prefix(err, "no credentials file (GOOGLE_APPLICATION_CREDENTIALS, credentials_file), so the "
				       "machine's own are needed");
	if (rc < 0 || !source->impersonate) {
		*ret_token = own;
		*ret_expires = expires;
		return rc;
	}
	iam = cmek_cloud_endpoint(source->cloud, "iam_endpoint", no_variables, IAM_URL);
	if ((size_t)snprintf(url, sizeof(url), "%s/v1/projects/-/serviceAccounts/%s:generateAccessToken", iam,
			     source->impersonate) >= sizeof(url))
		rc = cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the endpoint's URL is too long");
	else
		rc = impersonate_at(source, url, own, ret_token, ret_expires, err);
	if (rc < 0)
		cmek_error_prefix(err, "acting as %s", source->impersonate);
	cmek_secret_free(own);
	return rc;
}

/* Tells apart whatever makes another token. */
static int name_token(struct cmek_gcp_token *source, const char *file, const char *base, struct cmek_error *err)
{
	char *name = NULL;

	if (asprintf(&name, "gcp\n%s\n%s", file ? file : base, source->impersonate ? source->impersonate : "") < 0)
		return cmek_error_sys(err, ENOMEM, "looking for credentials");
	free(source->name);
	source->name = name;
	return 0;
}

/* The project in a credentials file: malloced, NULL when it names none (or can't be read: fetching says why). */
static char *quota_project_of(const char *file)
{
	struct cmek_secret *text = NULL;
	const char *project = NULL;
	char *found = NULL;
	json_t *json = NULL;

	if (cmek_cred_file_read(file, CREDENTIALS_MAX_BYTES, &text, NULL) < 0)
		return NULL;
	if (cmek_json_parse(cmek_secret_bytes(text, CMEK_KEY_TEXT), cmek_secret_len(text), file, &json, NULL) == 0)
		project = json_string_value(json_object_get(json, "quota_project_id"));
	if (project)
		found = strdup(project);
	json_decref(json);
	cmek_secret_free(text);
	return found;
}

/* A token from the cache does not tell it, so it is looked for apart, once a handle. */
static int find_quota_project(struct cmek_gcp_token *source, const char *file, struct cmek_error *err)
{
	static const char alphabet[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.:_";
	const char *project = cmek_cloud_text(source->cloud, "quota_project");

	if (source->quota_known)
		return 0;
	if (!project)
		project = env("GOOGLE_CLOUD_QUOTA_PROJECT");
	if (project)
		source->quota_project = strdup(project);
	else if (file)
		source->quota_project = quota_project_of(file);
	if (project && !source->quota_project)
		return cmek_error_sys(err, ENOMEM, "looking for credentials");
	/* It goes into a header. */
	if (source->quota_project && strspn(source->quota_project, alphabet) != strlen(source->quota_project)) {
		free(source->quota_project);
		source->quota_project = NULL;
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the quota project of these credentials is not the name of "
								 "a project");
	}
	source->quota_known = true;
	return 0;
}

int cmek_gcp_token_get(struct cmek_gcp_token *source, struct cmek_secret **ret_token, struct cmek_error *err)
{
	struct fetch f = { .source = source };
	struct cmek_token_source ask = { .fetch = fetch, .arg = &f };
	char base[URL_MAX_BYTES], *file = NULL;
	int rc;

	rc = find_file(source, &file, err);
	if (rc == 0)
		rc = metadata_base(source, base, err);
	if (rc == 0)
		rc = name_token(source, file, base, err);
	if (rc == 0)
		rc = find_quota_project(source, file, err);
	if (rc == 0) {
		f.file = file;
		f.base = base;
		rc = cmek_token_get(cmek_kms_session_tokens(source->cloud->session), source->name,
				    cmek_http_time(source->cloud->http), &ask, ret_token, err);
	}
	free(file);
	return rc;
}

int cmek_gcp_token_identity(struct cmek_gcp_token *source, char **ret_text, struct cmek_error *err)
{
	struct cmek_secret *token = NULL;
	char *file = NULL;
	int rc, n;

	rc = find_file(source, &file, err);
	if (rc < 0)
		return rc;
	/* Only fetching tells. */
	rc = cmek_gcp_token_get(source, &token, err);
	if (rc == 0 && source->who[0] == '\0') {
		cmek_secret_free(token);
		token = NULL;
		cmek_gcp_token_forget(source);
		rc = cmek_gcp_token_get(source, &token, err);
	}
	cmek_secret_free(token);
	if (rc == 0) {
		n = asprintf(ret_text, "%s%s%s, by %s", source->who, source->impersonate ? ", acting as " : "",
			     source->impersonate ? source->impersonate : "", file ? file : "the metadata server");
		if (n < 0)
			rc = cmek_error_sys(err, ENOMEM, "looking for credentials");
	}
	free(file);
	return rc;
}

void cmek_gcp_token_forget(struct cmek_gcp_token *source)
{
	if (source->name)
		cmek_token_forget(cmek_kms_session_tokens(source->cloud->session), source->name);
}
