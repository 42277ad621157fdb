/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * An AWS client's settings, endpoints, and signed requests. It must not know where credentials come from, nor what is
 * asked.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kms/aws_creds.h"
#include "kms/aws_key.h"
#include "kms/aws_sigv4.h"

/* AWS allows five minutes; what is less is no reason to doubt a clock. */
#define SKEW_MIN_S 240

/* A variable's text, NULL if it is unset or empty. */
static const char *env_text(const char *name)
{
	const char *text = getenv(name);

	return text && *text ? text : NULL;
}

static bool env_true(const char *name)
{
	const char *text = env_text(name);

	return text && strcasecmp(text, "true") == 0;
}

static int find_region(struct cmek_aws_client *c, struct cmek_error *err)
{
	const char *region = cmek_kms_session_text(c->session, "aws", c->conf_profile, "region");

	if (!region)
		region = env_text("AWS_REGION");
	if (!region)
		region = env_text("AWS_DEFAULT_REGION");
	if (region)
		snprintf(c->region, sizeof(c->region), "%s", region);
	else if (!cmek_aws_value_copy(cmek_aws_profile_value(&c->files, c->profile, "region"), c->region,
				      sizeof(c->region)))
		return 0;
	if (!cmek_aws_region_ok(region ? region : c->region))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "'%.100s' is not a Region of AWS",
				      region ? region : c->region);
	return 0;
}

int cmek_aws_client_init(struct cmek_aws_client *c, struct cmek_kms_session *session, const char *conf_profile,
			 struct cmek_error *err)
{
	const char *profile = cmek_kms_session_text(session, "aws", conf_profile, "profile");
	int rc;

	memset(c, 0, sizeof(*c));
	c->session = session;
	c->conf_profile = conf_profile;
	c->settings = cmek_kms_session_settings(session, "aws", conf_profile);
	if (!c->settings.ca_file)
		c->settings.ca_file = env_text("AWS_CA_BUNDLE");
	c->environment_last = profile != NULL;
	if (!profile)
		profile = env_text("AWS_PROFILE");
	c->profile_given = profile != NULL;
	if (!profile)
		profile = "default";
	if (strlen(profile) >= sizeof(c->profile))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "'%.100s...' is not a profile of AWS", profile);
	snprintf(c->profile, sizeof(c->profile), "%s", profile);
	rc = cmek_aws_profiles_load(cmek_kms_session_text(session, "aws", conf_profile, "config_file"),
				    cmek_kms_session_text(session, "aws", conf_profile, "credentials_file"), &c->files, err);
	if (rc == 0)
		rc = find_region(c, err);
	if (rc == 0)
		rc = cmek_kms_session_http(session, &c->http, err);
	if (rc < 0)
		cmek_aws_client_done(c);
	return rc;
}

void cmek_aws_client_done(struct cmek_aws_client *c)
{
	cmek_aws_profiles_done(&c->files);
}

/* An override with its source, or NULL. buf: room for one from a file. */
static const char *endpoint_override(const struct cmek_aws_client *c, const char *service, char *buf, size_t max)
{
	bool is_kms = strcmp(service, "kms") == 0;
	const char *url = cmek_kms_session_text(c->session, "aws", c->conf_profile, is_kms ? "endpoint" : "sts_endpoint");

	if (url || env_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"))
		return url;
	url = env_text(is_kms ? "AWS_ENDPOINT_URL_KMS" : "AWS_ENDPOINT_URL_STS");
	if (!url)
		url = env_text("AWS_ENDPOINT_URL");
	if (!url && cmek_aws_value_copy(cmek_aws_profile_endpoint(&c->files, c->profile, service), buf, max))
		url = buf;
	return url;
}

int cmek_aws_client_endpoint(const struct cmek_aws_client *c, const char *service, const char *region, char *out,
			     size_t max, struct cmek_error *err)
{
	char buf[512];
	const char *url = endpoint_override(c, service, buf, sizeof(buf)), *path;
	bool fips = cmek_kms_session_bool(c->session, "aws", c->conf_profile, "fips") || env_true("AWS_USE_FIPS_ENDPOINT");
	bool dual = cmek_kms_session_bool(c->session, "aws", c->conf_profile, "dual_stack") ||
		    env_true("AWS_USE_DUALSTACK_ENDPOINT");

	if (!region[0])
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "no Region is known: name the key by its ARN, or set region in [aws], or AWS_REGION");
	if (!url) {
		if (cmek_aws_endpoint(service, region, fips, dual, out, max) == 0)
			return 0;
	} else {
		path = strstr(url, "://");
		path = path ? strchr(path + 3, '/') : NULL;
		/* More of a path would have to be encoded for the signature, which no endpoint asks for. */
		if (path && path[1] != '\0')
			return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the endpoint '%.200s' has a path", url);
		if ((size_t)snprintf(out, max, "%s%s", url, path ? "" : "/") < max)
			return 0;
	}
	return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the endpoint of %s is too long", service);
}

/* ---- requests ---- */

#define N_SIGNED_MAX 5

struct signing {
	struct cmek_aws_client *client;
	const struct cmek_aws_call *call;
	char host[300];
	char date[CMEK_SIGV4_DATE_LEN];
	char authorization[CMEK_SIGV4_AUTHORIZATION_MAX];
};

/* host[:port] as libcurl writes it into the Host header: without the port that the scheme implies. */
static bool host_of(const char *url, char *out, size_t max)
{
	const char *host = strstr(url, "://");
	bool tls = strncmp(url, "https", 5) == 0;
	size_t n, port_len = tls ? 4 : 3;

	if (!host)
		return false;
	host += 3;
	n = strcspn(host, "/?#");
	if (n > port_len && memcmp(host + n - port_len, tls ? ":443" : ":80", port_len) == 0)
		n -= port_len;
	if (n + 1 > max)
		return false;
	memcpy(out, host, n);
	out[n] = '\0';
	return true;
}

/* The headers of one attempt: with a signature of now. */
static int prepare(void *arg, struct cmek_http_request *req, struct cmek_error *err)
{
	struct signing *s = arg;
	const struct cmek_aws_creds *creds = s->call->creds;
	struct cmek_sigv4_header headers[N_SIGNED_MAX];
	struct cmek_sigv4_request to_sign = {
		.method = req->method, .path = "/", .query = "", .headers = headers, .body = req->body,
		.body_len = req->body_len, .region = s->call->region, .service = s->call->service, .date = s->date,
		.access_key = creds->access_key, .secret_key = creds->secret_key,
	};
	size_t n = 0, h = 0;
	int rc;

	cmek_sigv4_date(cmek_http_time(s->client->http) + s->client->skew, s->date);
	headers[n++] = (struct cmek_sigv4_header){ "content-type", s->call->content_type };
	headers[n++] = (struct cmek_sigv4_header){ "host", s->host };
	headers[n++] = (struct cmek_sigv4_header){ "x-amz-date", s->date };
	if (creds->token)
		headers[n++] = (struct cmek_sigv4_header){ "x-amz-security-token",
							   (const char *)cmek_secret_bytes(creds->token, CMEK_KEY_TEXT) };
	if (s->call->target)
		headers[n++] = (struct cmek_sigv4_header){ "x-amz-target", s->call->target };
	to_sign.n_headers = n;
	rc = cmek_sigv4_authorization(&to_sign, s->authorization, sizeof(s->authorization), err);
	memset(req->headers, 0, sizeof(req->headers));
	req->headers[h++] = (struct cmek_http_header){ .name = "Content-Type", .value = s->call->content_type };
	req->headers[h++] = (struct cmek_http_header){ .name = "X-Amz-Date", .value = s->date };
	if (s->call->target)
		req->headers[h++] = (struct cmek_http_header){ .name = "X-Amz-Target", .value = s->call->target };
	if (creds->token)
		req->headers[h++] = (struct cmek_http_header){ .name = "X-Amz-Security-Token", .secret = creds->token };
	req->headers[h++] = (struct cmek_http_header){ .name = "Authorization", .value = s->authorization };
	return rc;
}

/* AWS's clock and ours differ by more than it allows; its own is then taken. */
static bool learn_skew(struct cmek_aws_client *c, const struct cmek_http_response *resp)
{
	static const char *const codes[] = { "InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired",
					     "RequestTimeTooSkewed", "RequestInTheFuture", "AuthFailure" };
	int64_t off;

	if (resp->date == 0)
		return false;
	off = resp->date - (cmek_http_time(c->http) + c->skew);
	if (off > -SKEW_MIN_S && off < SKEW_MIN_S)
		return false;
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		if (strcmp(resp->problem.code, codes[i]) == 0) {
			c->skew += off;
			return true;
		}
	}
	return false;
}

int cmek_aws_send(struct cmek_aws_client *c, const struct cmek_aws_call *call, struct cmek_http_response *ret_resp,
		  struct cmek_error *err)
{
	struct signing s = { .client = c, .call = call };
	struct cmek_http_request req = { .service = CMEK_KMS_SERVICE_AWS, .what = call->what, .settings = &c->settings,
					 .method = "POST", .body = call->body, .body_len = call->body_len,
					 .read_problem = cmek_aws_read_problem };
	struct cmek_error failure = CMEK_ERROR_INIT;
	char url[512];
	int rc;

	memset(ret_resp, 0, sizeof(*ret_resp));
	rc = cmek_aws_client_endpoint(c, call->service, call->region, url, sizeof(url), err);
	if (rc < 0)
		return rc;
	req.url = url;
	if (!host_of(url, s.host, sizeof(s.host)))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "%s: '%.200s' is not an endpoint", call->what, url);
	if (call->creds) {
		req.prepare = prepare;
		req.prepare_arg = &s;
	} else {
		req.headers[0] = (struct cmek_http_header){ .name = "Content-Type", .value = call->content_type };
	}
	rc = cmek_http_call(c->http, &req, ret_resp, &failure);
	if (rc < 0 && call->creds && learn_skew(c, ret_resp)) {
		cmek_http_response_done(ret_resp);
		cmek_error_clear(&failure);
		rc = cmek_http_call(c->http, &req, ret_resp, &failure);
	}
	return rc < 0 ? cmek_error_set(err, failure.kind, failure.err, "%s", failure.text) : rc;
}
