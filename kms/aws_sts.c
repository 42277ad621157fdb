/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The three requests to STS. It must not know why a role is assumed.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kms/aws_creds.h"

#define FORM "application/x-www-form-urlencoded; charset=utf-8"
#define DURATION_DEFAULT_S 3600
#define FORM_MAX (2048 * 3 + 1024)

/* "&name=value", escaped. */
static bool add_field(char *form, size_t max, const char *name, const char *value)
{
	size_t n = strlen(form);

	if (n + strlen(name) + 3 > max)
		return false;
	snprintf(form + n, max - n, "&%s=", name);
	return cmek_http_escape(form, max, value);
}

static bool fill_form(const struct cmek_aws_role *role, char *form, size_t max)
{
	char duration[16];

	snprintf(form, max, "Action=%s&Version=2011-06-15", role->web_identity ? "AssumeRoleWithWebIdentity" : "AssumeRole");
	snprintf(duration, sizeof(duration), "%u", role->duration_s ? role->duration_s : DURATION_DEFAULT_S);
	return add_field(form, max, "RoleArn", role->arn) &&
	       add_field(form, max, "RoleSessionName", role->session_name ? role->session_name : "cmekfs") &&
	       add_field(form, max, "DurationSeconds", duration) &&
	       (!role->external_id || add_field(form, max, "ExternalId", role->external_id)) &&
	       (!role->web_identity || add_field(form, max, "WebIdentityToken",
						 (const char *)cmek_secret_bytes(role->web_identity, CMEK_KEY_TEXT)));
}

int cmek_aws_assume(struct cmek_aws_client *client, const struct cmek_aws_role *role, const char *region,
		    const struct cmek_aws_creds *base, struct cmek_aws_creds *ret_creds, struct cmek_error *err)
{
	size_t max = FORM_MAX + (role->web_identity ? 3 * cmek_secret_len(role->web_identity) : 0);
	struct cmek_aws_call call = { .service = "sts", .region = region, .what = "AWS STS, AssumeRole",
				      .content_type = FORM, .creds = base };
	struct cmek_http_response resp;
	struct cmek_secret *room = NULL;
	char *form;
	int rc;

	if (role->web_identity)
		call.what = "AWS STS, AssumeRoleWithWebIdentity";
	rc = cmek_secret_new(CMEK_KEY_TEXT, max, &room, err);
	if (rc < 0)
		return rc;
	form = (char *)cmek_secret_fill(room, CMEK_KEY_TEXT);
	if (!fill_form(role, form, max)) {
		cmek_secret_free(room);
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "%s: the role's ARN, session name or external id is too long",
				      call.what);
	}
	call.body = form;
	call.body_len = strlen(form);
	rc = cmek_aws_send(client, &call, &resp, err);
	if (rc == 0)
		rc = cmek_aws_creds_from_xml(resp.body, resp.body_len, call.what, ret_creds, err);
	if (rc == 0)
		snprintf(ret_creds->source, sizeof(ret_creds->source), "role %.200s", role->arn);
	else
		cmek_error_prefix(err, "assuming the role %.200s", role->arn);
	cmek_http_response_done(&resp);
	cmek_secret_free(room);
	return rc;
}

int cmek_aws_identity(struct cmek_aws_client *client, const char *region, char **ret_arn, struct cmek_error *err)
{
	static const char form[] = "Action=GetCallerIdentity&Version=2011-06-15";
	struct cmek_aws_creds creds = { .access_key = "" };
	struct cmek_aws_call call = { .service = "sts", .region = region, .what = "AWS STS, GetCallerIdentity",
				      .content_type = FORM, .body = form, .body_len = sizeof(form) - 1, .creds = &creds };
	struct cmek_http_response resp = { .status = 0 };
	char arn[512], text[sizeof(arn) + sizeof(creds.source) + 4];
	int rc = cmek_aws_creds_get(client, region, &creds, err);

	if (rc == 0)
		rc = cmek_aws_send(client, &call, &resp, err);
	if (rc == 0 && cmek_aws_xml_text(resp.body, resp.body_len, "Arn", arn, sizeof(arn)) < 0)
		rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "%s: no Arn in the answer", call.what);
	if (rc == 0) {
		snprintf(text, sizeof(text), "%s (%s)", arn, creds.source);
		*ret_arn = strdup(text);
		if (!*ret_arn)
			rc = cmek_error_sys(err, ENOMEM, "%s", call.what);
		else
			cmek_problem_text(*ret_arn, strlen(text) + 1, text, strlen(text));
	}
	cmek_http_response_done(&resp);
	cmek_aws_creds_done(&creds);
	return rc;
}
