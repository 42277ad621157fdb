/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * AWS KMS as a provider: wrapping and unwrapping, and the table of operations (doc/kms/aws.md). It must not know how
 * requests travel, are signed, or tried again.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "kms/aws.h"
#include "kms/aws_handle.h"
#include "kms/kms_uri.h"

#define KEK_LEN 32
#define BLOB_MAX 6144

static bool aws_match(const char *uri)
{
	return cmek_kms_uri_service(uri) == CMEK_KMS_SERVICE_AWS;
}

static int aws_open(const char *uri, const struct cmek_kms_principal *principal, const struct cmek_kms_options *opts,
		    void **ret_state, struct cmek_error *err)
{
	struct cmek_aws *aws = NULL;
	int rc = cmek_aws_handle_new(uri, principal, opts, &aws, err);

	if (rc == 0)
		*ret_state = aws;
	return rc;
}

static void aws_close(void *state)
{
	cmek_aws_handle_free(state);
}

static json_t *context_json(const struct cmek_kms_context *ctx)
{
	char uuid[CMEK_UUID_TEXT];

	cmek_uuid_encode(ctx->volume, uuid);
	return json_pack("{s:s, s:s}", "cmekfs:volume", uuid, "cmekfs:slot", ctx->purpose);
}

static json_t *blob_json(const struct cmek_kms_blob *blob)
{
	char text[CMEK_B64_LEN(BLOB_MAX) + 1];

	if (blob->len > BLOB_MAX)
		return NULL;
	cmek_b64_encode(blob->data, blob->len, text);
	return json_string(text);
}

/* CiphertextBlob and KeyId of an answer. */
static int take_blob(const json_t *reply, struct cmek_kms_blob *ret_blob, struct cmek_error *err)
{
	struct cmek_json_at at = cmek_json_root(reply, "the answer of AWS KMS");
	const char *text = NULL, *arn = NULL;
	long n;
	int rc = cmek_json_string(&at, "CiphertextBlob", &text, err);

	if (rc == 0)
		rc = cmek_json_string(&at, "KeyId", &arn, err);
	if (rc < 0)
		return rc;
	ret_blob->data = malloc(BLOB_MAX);
	ret_blob->resolved = strdup(arn);
	if (!ret_blob->data || !ret_blob->resolved)
		return cmek_error_sys(err, ENOMEM, "wrapping a key");
	n = cmek_b64_decode(text, strlen(text), ret_blob->data, BLOB_MAX);
	if (n <= 0)
		return cmek_json_bad(&at, "CiphertextBlob", "is not base64 of 1 to 6144 bytes", err);
	ret_blob->len = (size_t)n;
	return 0;
}

/* The answer must be by the key that was asked: whoever stands between could name another one. */
static int check_key(const struct cmek_aws_target *target, const char *answered, const char *operation,
		     struct cmek_error *err)
{
	struct cmek_aws_key asked;

	/* An alias or a bare id is answered by an ARN. */
	if (cmek_aws_key_parse(target->id, &asked, NULL) < 0 || strncmp(target->id, "arn:", 4) != 0 ||
	    cmek_aws_key_is_alias(&asked) || strcmp(target->id, answered) == 0)
		return 0;
	return cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG, "AWS KMS, %s: asked of %s, and %.200s has answered", operation,
			      target->id, answered);
}

/* What Encrypt shall use: an alias becomes its key, and the version in use is known. Without permission: as given. */
static int pin(struct cmek_aws *aws, struct cmek_aws_target *target, char **ret_version, struct cmek_error *err)
{
	struct cmek_error failure = CMEK_ERROR_INIT;
	struct cmek_aws_metadata meta;
	int rc = cmek_aws_target_of(aws, &aws->key, target, err);

	if (rc < 0)
		return rc;
	rc = cmek_aws_metadata(aws, target, &meta, &failure);
	if (rc < 0 && failure.kind == CMEK_E_DENIED && failure.err == EACCES) {
		*ret_version = strdup("");
		return *ret_version ? 0 : cmek_error_sys(err, ENOMEM, "wrapping a key");
	}
	if (rc < 0)
		return cmek_error_set(err, failure.kind, failure.err, "%s", failure.text);
	snprintf(target->id, sizeof(target->id), "%s", meta.info.resolved);
	*ret_version = meta.info.primary_version;
	meta.info.primary_version = NULL;
	cmek_aws_metadata_done(&meta);
	return 0;
}

static int aws_wrap(void *state, const struct cmek_kms_context *ctx, const struct cmek_secret *key,
		    struct cmek_kms_blob *ret_blob, struct cmek_error *err)
{
	char text[CMEK_B64_LEN(KEK_LEN) + 1];
	struct cmek_aws *aws = state;
	struct cmek_aws_target target;
	json_t *members, *reply = NULL;
	int rc;

	cmek_aws_begin(aws);
	rc = pin(aws, &target, &ret_blob->version, err);
	if (rc < 0)
		return rc;
	cmek_b64_encode(cmek_secret_bytes(key, CMEK_KEY_KEK), KEK_LEN, text);
	members = cmek_aws_members("KeyId", target.id);
	cmek_aws_add(&members, "Plaintext", json_string(text));
	cmek_aws_add(&members, "EncryptionContext", context_json(ctx));
	cmek_wipe(text, sizeof(text));
	rc = cmek_aws_kms(aws, &target, "Encrypt", &members, &reply, err);
	if (rc == 0)
		rc = take_blob(reply, ret_blob, err);
	if (rc == 0)
		rc = check_key(&target, ret_blob->resolved, "Encrypt", err);
	json_decref(reply);
	return rc;
}

/* The key that has wrapped the blob: what is recorded with it, else the one that the handle is for. */
static int target_of_blob(struct cmek_aws *aws, const struct cmek_kms_blob *blob, struct cmek_aws_target *ret_target,
			  struct cmek_error *err)
{
	struct cmek_aws_key key = aws->key;
	int rc = blob->resolved ? cmek_aws_key_parse(blob->resolved, &key, err) : 0;

	return rc < 0 ? rc : cmek_aws_target_of(aws, &key, ret_target, err);
}

/* Of a key that has wrapped something: it was there once. */
static int gone(const struct cmek_aws_target *target, const struct cmek_error *failure, struct cmek_error *err)
{
	if (failure->kind != CMEK_E_NOT_FOUND || failure->err != ENOKEY)
		return cmek_error_set(err, failure->kind, failure->err, "%s", failure->text);
	return cmek_error_set(err, CMEK_E_KEY_DESTROYED, EKEYREVOKED, "%s: the key %s has been deleted, or its name was changed",
			      failure->text, target->id);
}

static int aws_unwrap(void *state, const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
		      struct cmek_secret **ret_key, struct cmek_kms_blob *ret_fresh, struct cmek_error *err)
{
	struct cmek_error failure = CMEK_ERROR_INIT;
	struct cmek_aws *aws = state;
	struct cmek_aws_target target;
	json_t *members, *reply = NULL;
	struct cmek_json_at at;
	const char *answered = NULL;
	int rc;

	(void)ret_fresh; /* a blob stays good after a rotation */
	cmek_aws_begin(aws);
	rc = target_of_blob(aws, blob, &target, err);
	if (rc < 0)
		return rc;
	members = cmek_aws_members("KeyId", target.id);
	cmek_aws_add(&members, "CiphertextBlob", blob_json(blob));
	cmek_aws_add(&members, "EncryptionContext", context_json(ctx));
	rc = cmek_aws_kms(aws, &target, "Decrypt", &members, &reply, &failure);
	if (rc < 0)
		return gone(&target, &failure, err);
	at = cmek_json_root(reply, "AWS KMS, the answer to Decrypt");
	rc = cmek_json_string(&at, "KeyId", &answered, err);
	if (rc == 0)
		rc = check_key(&target, answered, "Decrypt", err);
	if (rc == 0)
		rc = cmek_json_secret_b64(&at, "Plaintext", CMEK_KEY_KEK, KEK_LEN, ret_key, err);
	json_decref(reply);
	return rc;
}

/* In the KMS: the key never comes here. */
static int aws_rewrap(void *state, const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
		      struct cmek_kms_blob *ret_blob, struct cmek_error *err)
{
	struct cmek_error failure = CMEK_ERROR_INIT;
	struct cmek_aws *aws = state;
	struct cmek_aws_target source, target;
	json_t *members, *reply = NULL;
	const char *version;
	int rc;

	cmek_aws_begin(aws);
	rc = target_of_blob(aws, blob, &source, err);
	if (rc == 0)
		rc = pin(aws, &target, &ret_blob->version, err);
	if (rc == 0 && strcmp(source.region, target.region) != 0)
		rc = cmek_error_set(err, CMEK_E_UNSUPPORTED, EOPNOTSUPP,
				    "AWS KMS does not re-wrap from one Region to another (%s to %s): add a slot for the new key, "
				    "then remove the old one",
				    source.region, target.region);
	if (rc < 0)
		return rc;
	members = cmek_aws_members("DestinationKeyId", target.id);
	cmek_aws_add(&members, "SourceKeyId", json_string(source.id));
	cmek_aws_add(&members, "CiphertextBlob", blob_json(blob));
	cmek_aws_add(&members, "SourceEncryptionContext", context_json(ctx));
	cmek_aws_add(&members, "DestinationEncryptionContext", context_json(ctx));
	rc = cmek_aws_kms(aws, &target, "ReEncrypt", &members, &reply, &failure);
	if (rc < 0)
		return gone(&source, &failure, err);
	rc = take_blob(reply, ret_blob, err);
	if (rc == 0)
		rc = check_key(&target, ret_blob->resolved, "ReEncrypt", err);
	version = json_string_value(json_object_get(reply, "DestinationKeyMaterialId"));
	if (rc == 0 && version) {
		free(ret_blob->version);
		ret_blob->version = strdup(version);
		if (!ret_blob->version)
			rc = cmek_error_sys(err, ENOMEM, "wrapping a key");
	}
	json_decref(reply);
	return rc;
}

static int aws_identity(void *state, char **ret_text, struct cmek_error *err)
{
	struct cmek_aws *aws = state;
	struct cmek_aws_target target;
	int rc;

	cmek_aws_begin(aws);
	rc = cmek_aws_target_of(aws, &aws->key, &target, err);
	return rc < 0 ? rc : cmek_aws_identity(&aws->client, target.region, ret_text, err);
}

static struct cmek_http *http(void *state)
{
	const struct cmek_aws *aws = state;

	return aws->client.http;
}

const struct cmek_kms_provider cmek_kms_aws = {
	.name = "aws",
	.match = aws_match,
	.open = aws_open,
	.close = aws_close,
	.wrap = aws_wrap,
	.unwrap = aws_unwrap,
	.rewrap = aws_rewrap,
	.describe = cmek_aws_describe,
	.create = cmek_aws_create,
	.rotate = cmek_aws_rotate,
	.enable = cmek_aws_enable,
	.disable = cmek_aws_disable,
	.schedule_deletion = cmek_aws_schedule_deletion,
	.cancel_deletion = cmek_aws_cancel_deletion,
	.identity = aws_identity,
	.policy = cmek_aws_policy,
	.http = http,
};
