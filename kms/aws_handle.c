/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * An opened key of AWS KMS, and how an operation of the service is asked for and its refusals are understood. It must not
 * know what an operation is good for.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "kms/aws_handle.h"

#define CONTENT_TYPE "application/x-amz-json-1.1"
/* A key that is being made or replicated is usable seconds later. */
#define TRANSIENT_TRIES 4

static char *copy(const char *text, bool *failed)
{
	char *p = text ? strdup(text) : NULL;

	if (text && !p)
		*failed = true;
	return p;
}

static int open_session(struct cmek_aws *aws, const struct cmek_kms_options *opts, struct cmek_error *err)
{
	int rc = 0;

	if (opts->session)
		aws->session = opts->session;
	else
		rc = cmek_kms_session_new(opts->config_path, &aws->own_session, err);
	if (aws->own_session)
		aws->session = aws->own_session;
	if (rc == 0)
		rc = cmek_kms_session_check_profile(aws->session, opts->profile, err);
	if (rc == 0)
		rc = cmek_aws_client_init(&aws->client, aws->session, aws->profile, err);
	return rc;
}

int cmek_aws_handle_new(const char *uri, const struct cmek_kms_principal *principal,
			const struct cmek_kms_options *opts, struct cmek_aws **ret_aws, struct cmek_error *err)
{
	struct cmek_aws *aws = calloc(1, sizeof(*aws));
	bool failed = false;
	int rc;

	if (!aws)
		return cmek_error_sys(err, ENOMEM, "opening the key %s", uri);
	rc = cmek_aws_key_parse(uri, &aws->key, err);
	aws->profile = copy(opts->profile, &failed);
	aws->role = copy(principal->role, &failed);
	aws->external_id = copy(principal->external_id, &failed);
	if (rc == 0 && failed)
		rc = cmek_error_sys(err, ENOMEM, "opening the key %s", uri);
	if (rc == 0)
		rc = open_session(aws, opts, err);
	if (rc < 0) {
		cmek_aws_handle_free(aws);
		return rc;
	}
	aws->client.role = aws->role;
	aws->client.external_id = aws->external_id;
	aws->deadline_ms = cmek_kms_session_deadline_ms(aws->session, "aws", aws->profile, opts->deadline_ms);
	*ret_aws = aws;
	return 0;
}

void cmek_aws_handle_free(struct cmek_aws *aws)
{
	if (!aws)
		return;
	cmek_aws_client_done(&aws->client);
	cmek_kms_session_free(aws->own_session);
	free(aws->profile);
	free(aws->role);
	free(aws->external_id);
	free(aws);
}

void cmek_aws_begin(struct cmek_aws *aws)
{
	cmek_http_begin(aws->client.http, aws->deadline_ms);
}

int cmek_aws_target_of(const struct cmek_aws *aws, const struct cmek_aws_key *key, struct cmek_aws_target *ret_target,
		       struct cmek_error *err)
{
	const char *replica = cmek_kms_session_text(aws->session, "aws", aws->profile, "replica_region");
	struct cmek_aws_key asked = *key;

	if (!asked.region[0])
		snprintf(asked.region, sizeof(asked.region), "%s", aws->client.region);
	if (replica && cmek_aws_key_is_multi_region(key))
		snprintf(asked.region, sizeof(asked.region), "%s", replica);
	if (!cmek_aws_region_ok(asked.region))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      asked.region[0] ? "'%.100s' is not a Region of AWS" :
							"no Region is known%s: name the key by its ARN, or set region in [aws], or "
							"AWS_REGION",
				      asked.region);
	snprintf(ret_target->region, sizeof(ret_target->region), "%s", asked.region);
	cmek_aws_key_id(&asked, ret_target->id);
	return 0;
}

json_t *cmek_aws_members(const char *key_name, const char *key_id)
{
	json_t *members = json_object();

	if (members && key_name && json_object_set_new(members, key_name, json_string(key_id)) < 0) {
		json_decref(members);
		members = NULL;
	}
	return members;
}

void cmek_aws_add(json_t **members, const char *name, json_t *value)
{
	if (!*members) {
		json_decref(value);
	} else if (json_object_set_new(*members, name, value) < 0) { /* also for a value that is NULL */
		json_decref(*members);
		*members = NULL;
	}
}

/* ---- one operation ---- */

static int send_once(struct cmek_aws *aws, const struct cmek_aws_target *target, const char *operation, const char *what,
		     const char *body, struct cmek_http_response *resp, struct cmek_error *err)
{
	struct cmek_aws_creds creds = { .access_key = "" };
	char name[64];
	const struct cmek_aws_call call = { .service = "kms", .region = target->region, .what = what, .target = name,
					    .content_type = CONTENT_TYPE, .body = body, .body_len = strlen(body),
					    .creds = &creds };
	int rc = cmek_aws_creds_get(&aws->client, target->region, &creds, err);

	snprintf(name, sizeof(name), "TrentService.%s", operation);
	if (rc == 0) {
		rc = cmek_aws_send(&aws->client, &call, resp, err);
		if (rc < 0 && resp->class.renew)
			cmek_error_prefix(err, "with the credentials of %s", creds.source);
	}
	cmek_aws_creds_done(&creds);
	return rc;
}

/* The answer to a body, with new credentials once if those in hand are refused. */
static int send(struct cmek_aws *aws, const struct cmek_aws_target *target, const char *operation, const char *what,
		const char *body, struct cmek_http_response *resp, struct cmek_error *err)
{
	struct cmek_error failure = CMEK_ERROR_INIT;
	int rc = send_once(aws, target, operation, what, body, resp, &failure);

	if (rc < 0 && resp->class.renew) {
		cmek_http_response_done(resp);
		cmek_error_clear(&failure);
		cmek_aws_creds_forget(&aws->client);
		rc = send_once(aws, target, operation, what, body, resp, &failure);
	}
	return rc < 0 ? cmek_error_set(err, failure.kind, failure.err, "%s", failure.text) : rc;
}

static int ask(struct cmek_aws *aws, const struct cmek_aws_target *target, const char *operation, const char *body,
	       char *ret_code, size_t code_max, json_t **ret_reply, struct cmek_error *err)
{
	struct cmek_http_response resp = { .status = 0 };
	struct cmek_error failure = CMEK_ERROR_INIT;
	char what[96];
	int rc;

	snprintf(what, sizeof(what), "AWS KMS, %s", operation);
	rc = send(aws, target, operation, what, body, &resp, &failure);
	snprintf(ret_code, code_max, "%s", resp.problem.code);
	if (rc < 0 && target->id[0] && !strstr(failure.text, target->id)) /* the service mostly names it itself */
		cmek_error_prefix(&failure, "%s", target->id);
	if (rc < 0)
		rc = cmek_error_set(err, failure.kind, failure.err, "%s", failure.text);
	/* Some operations answer with nothing. */
	if (rc == 0)
		rc = cmek_json_parse(resp.body_len ? resp.body : "{}", resp.body_len ? resp.body_len : 2, what, ret_reply, err);
	cmek_http_response_done(&resp);
	return rc;
}

int cmek_aws_metadata(struct cmek_aws *aws, const struct cmek_aws_target *target, struct cmek_aws_metadata *ret_meta,
		      struct cmek_error *err)
{
	json_t *members = cmek_aws_members("KeyId", target->id), *reply = NULL;
	char *body = members ? json_dumps(members, JSON_COMPACT) : NULL, code[96];
	int rc;

	if (!body)
		rc = cmek_error_sys(err, ENOMEM, "describing %s", target->id);
	else
		rc = ask(aws, target, "DescribeKey", body, code, sizeof(code), &reply, err);
	if (rc == 0)
		rc = cmek_aws_metadata_from_json(reply, ret_meta, err);
	json_decref(reply);
	json_decref(members);
	free(body);
	return rc;
}

/*
 * KMSInvalidStateException does not tell which state: DescribeKey does. *failure becomes the whole story; who may not ask it
 * is denied and not told of a state. True: a state that passes by itself in seconds.
 */
static bool explain_state(struct cmek_aws *aws, const struct cmek_aws_target *target, struct cmek_error *failure)
{
	struct cmek_aws_metadata meta;
	struct cmek_error copy_of = *failure, why = CMEK_ERROR_INIT;
	char date[CMEK_TIME_TEXT];
	bool passes;

	if (cmek_aws_metadata(aws, target, &meta, &why) < 0) {
		/* The service does not give the key, that much is known; or it could not be asked at all. */
		cmek_error_clear(failure);
		if (why.kind == CMEK_E_UNREACHABLE || why.kind == CMEK_E_THROTTLED || why.kind == CMEK_E_EXPIRED)
			cmek_error_set(failure, why.kind, why.err, "%s (%s)", copy_of.text, why.text);
		else
			cmek_error_set(failure, CMEK_E_DENIED, EACCES, "%s (which state the key is in can't be told: %s)",
				       copy_of.text, why.text);
		return false;
	}
	passes = strcmp(meta.key_state, "Creating") == 0 || strcmp(meta.key_state, "Updating") == 0;
	cmek_error_clear(failure);
	if (meta.info.state == CMEK_KMS_PENDING_DELETION) {
		cmek_time_encode(meta.info.deletion_date, date);
		cmek_error_set(failure, CMEK_E_PENDING_DELETION, EKEYREVOKED, "%s (the key will be deleted%s%s)", copy_of.text,
			       meta.info.deletion_date ? " on " : "", meta.info.deletion_date ? date : "");
	} else if (meta.info.state == CMEK_KMS_DISABLED) {
		cmek_error_set(failure, CMEK_E_KEY_DISABLED, EKEYREVOKED, "%s (the key is in state %s)", copy_of.text,
			       meta.key_state);
	} else {
		/* Enabled by now, being made, or its own key store is away: nobody has taken it from us. */
		cmek_error_set(failure, CMEK_E_UNREACHABLE, ETIMEDOUT, "%s (the key is in state %s)", copy_of.text,
			       meta.key_state);
	}
	cmek_aws_metadata_done(&meta);
	return passes;
}

int cmek_aws_kms(struct cmek_aws *aws, const struct cmek_aws_target *target, const char *operation, json_t **members,
		 json_t **ret_reply, struct cmek_error *err)
{
	struct cmek_error failure = CMEK_ERROR_INIT;
	char *body = *members ? json_dumps(*members, JSON_COMPACT) : NULL, code[96] = "";
	bool again = true;
	int rc = 0;

	json_decref(*members);
	*members = NULL;
	if (!body)
		return cmek_error_sys(err, ENOMEM, "AWS KMS, %s", operation);
	for (unsigned i = 0; again; i++) {
		cmek_error_clear(&failure);
		rc = ask(aws, target, operation, body, code, sizeof(code), ret_reply, &failure);
		again = rc < 0 && strcmp(code, "KMSInvalidStateException") == 0 && explain_state(aws, target, &failure) &&
			i + 1 < TRANSIENT_TRIES && cmek_http_wait(aws->client.http, 1000u << i);
	}
	cmek_wipe(body, strlen(body));
	free(body);
	return rc < 0 ? cmek_error_set(err, failure.kind, failure.err, "%s", failure.text) : rc;
}
