/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Credentials from the machine itself: the endpoint of a container (ECS, EKS Pod Identity) and the metadata service of an
 * instance (IMDSv2). It must not know who asks, nor keep anything.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kms/aws_creds.h"
#include "kms/cred_file.h"

#define CONTAINER_HOST "http://169.254.170.2"
#define INSTANCE_HOST "http://169.254.169.254"
#define INSTANCE_HOST_V6 "http://[fd00:ec2::254]"
/* Where there is none of these services a connection is never made; what is made may be answered slowly. */
#define CONNECT_TIMEOUT_MS 1000
#define TIMEOUT_MS 5000
#define ATTEMPTS 3
#define ANSWER_MAX (64u << 10)
#define TOKEN_MAX 16384

static const char *env_text(const char *name)
{
	const char *text = getenv(name);

	return text && *text ? text : NULL;
}

/* Hosts that a container's full URI may name when it has no TLS: others could be anybody's. */
static bool host_allowed(const char *url)
{
	static const char *const hosts[] = { "127.", "localhost", "[::1]", "169.254.170.2", "169.254.170.23",
					     "[fd00:ec2::23]" };
	const char *host = url + strlen("http://");
	size_t n;

	if (strncmp(url, "https://", 8) == 0)
		return true;
	if (strncmp(url, "http://", 7) != 0)
		return false;
	n = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/");
	for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
		if (strlen(hosts[i]) == n && strncasecmp(hosts[i], host, n) == 0)
			return true;
	}
	return strncmp(host, hosts[0], 4) == 0 && strspn(host, "0123456789.") >= n;
}

/* The token that a container's endpoint wants, without the newline of its file. NULL: none is configured. */
static int container_token(struct cmek_secret **ret_token, struct cmek_error *err)
{
	const char *path = env_text("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
	const char *text = env_text("AWS_CONTAINER_AUTHORIZATION_TOKEN");
	struct cmek_secret *file = NULL;
	size_t n;
	int rc = 0;

	if (path) {
		rc = cmek_cred_file_read(path, TOKEN_MAX, &file, err);
		if (rc < 0)
			return rc;
		text = (const char *)cmek_secret_bytes(file, CMEK_KEY_TEXT);
	}
	if (text) {
		n = strcspn(text, "\r\n");
		if (text[n + strspn(text + n, "\r\n")] != '\0' || n == 0)
			rc = cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the container's authorization token is not one line");
		else
			rc = cmek_secret_new_copy(CMEK_KEY_TEXT, text, n, ret_token, err);
	}
	cmek_secret_free(file);
	return rc;
}

int cmek_aws_creds_container(struct cmek_aws_client *client, struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	const char *relative = env_text("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
	const char *full = env_text("AWS_CONTAINER_CREDENTIALS_FULL_URI");
	const struct cmek_http_settings settings = { .ca_file = client->settings.ca_file,
						     .connect_timeout_ms = CONNECT_TIMEOUT_MS };
	struct cmek_http_request req = { .service = CMEK_KMS_SERVICE_AWS, .what = "the container's credentials",
					 .settings = &settings, .method = "GET", .metadata = true,
					 .timeout_ms = TIMEOUT_MS, .attempts = ATTEMPTS,
					 .answer_max = ANSWER_MAX, .read_problem = cmek_aws_read_problem };
	struct cmek_http_response resp = { .status = 0 };
	struct cmek_secret *token = NULL;
	char url[1024];
	int rc;

	if (!relative && !full)
		return -ENOENT;
	if ((size_t)snprintf(url, sizeof(url), "%s%s", relative ? CONTAINER_HOST : "", relative ? relative : full) >=
		    sizeof(url) ||
	    (relative && relative[0] != '/') || !host_allowed(url))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "AWS_CONTAINER_CREDENTIALS_%s_URI leads to no place for credentials: '%.200s'",
				      relative ? "RELATIVE" : "FULL", relative ? relative : full);
	rc = container_token(&token, err);
	if (rc < 0)
		return rc;
	req.url = url;
	if (token)
		req.headers[0] = (struct cmek_http_header){ .name = "Authorization", .secret = token };
	rc = cmek_http_call(client->http, &req, &resp, err);
	if (rc == 0)
		rc = cmek_aws_creds_from_json(resp.body, resp.body_len, req.what, ret_creds, err);
	if (rc == 0)
		snprintf(ret_creds->source, sizeof(ret_creds->source), "the container's role");
	cmek_http_response_done(&resp);
	cmek_secret_free(token);
	return rc;
}

static const char *instance_host(const struct cmek_aws_client *client)
{
	const char *host = cmek_kms_session_text(client->session, "aws", client->conf_profile, "metadata_endpoint");
	const char *mode = env_text("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");

	if (!host)
		host = env_text("AWS_EC2_METADATA_SERVICE_ENDPOINT");
	if (host)
		return host;
	return mode && strcasecmp(mode, "IPv6") == 0 ? INSTANCE_HOST_V6 : INSTANCE_HOST;
}

/* One request to the metadata service: its answer is a text. token NULL: asks for one. */
static int ask_instance(struct cmek_aws_client *client, const char *path, const struct cmek_secret *token,
			struct cmek_http_response *resp, struct cmek_error *err)
{
	static const struct cmek_http_settings settings = { .connect_timeout_ms = CONNECT_TIMEOUT_MS };
	struct cmek_http_request req = { .service = CMEK_KMS_SERVICE_AWS, .what = "the instance's metadata service",
					 .settings = &settings, .method = token ? "GET" : "PUT", .metadata = true,
					 .timeout_ms = TIMEOUT_MS, .attempts = 1, .answer_max = ANSWER_MAX };
	const char *host = instance_host(client);
	size_t n = strlen(host);
	char url[512];

	while (n > 0 && host[n - 1] == '/')
		n--;
	if ((size_t)snprintf(url, sizeof(url), "%.*s%s", (int)n, host, path) >= sizeof(url))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the metadata service's address is too long");
	req.url = url;
	if (token) {
		req.headers[0] = (struct cmek_http_header){ .name = "x-aws-ec2-metadata-token", .secret = token };
	} else {
		req.headers[0] = (struct cmek_http_header){ .name = "x-aws-ec2-metadata-token-ttl-seconds",
							    .value = "21600" };
		req.body = "";
	}
	return cmek_http_call(client->http, &req, resp, err);
}

/* The role's name is the first line. */
static int role_path(const struct cmek_http_response *resp, char *path, size_t max, struct cmek_error *err)
{
	size_t n = strcspn(resp->body, "\r\n");
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+=,.@_-";

	if (n == 0 || strspn(resp->body, plain) < n ||
	    (size_t)snprintf(path, max, "/latest/meta-data/iam/security-credentials/%.*s", (int)n, resp->body) >= max)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the instance's metadata service names no role");
	return 0;
}

int cmek_aws_creds_instance(struct cmek_aws_client *client, struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	const char *disabled = env_text("AWS_EC2_METADATA_DISABLED");
	struct cmek_http_response resp = { .status = 0 };
	struct cmek_secret *token = NULL;
	char path[256];
	int rc;

	if (disabled && strcasecmp(disabled, "true") == 0)
		return -ENOENT;
	rc = ask_instance(client, "/latest/api/token", NULL, &resp, err);
	if (rc == 0 && (resp.body_len == 0 || strpbrk(resp.body, "\r\n")))
		rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the instance's metadata service gives no token");
	if (rc == 0)
		rc = cmek_secret_new_copy(CMEK_KEY_TEXT, resp.body, resp.body_len, &token, err);
	cmek_http_response_done(&resp);
	if (rc == 0)
		rc = ask_instance(client, "/latest/meta-data/iam/security-credentials/", token, &resp, err);
	if (rc == 0)
		rc = role_path(&resp, path, sizeof(path), err);
	cmek_http_response_done(&resp);
	if (rc == 0)
		rc = ask_instance(client, path, token, &resp, err);
	if (rc == 0)
		rc = cmek_aws_creds_from_json(resp.body, resp.body_len, "the instance's metadata service", ret_creds, err);
	if (rc == 0)
		snprintf(ret_creds->source, sizeof(ret_creds->source), "the instance's role %.100s", strrchr(path, '/') + 1);
	cmek_http_response_done(&resp);
	cmek_secret_free(token);
	return rc;
}
