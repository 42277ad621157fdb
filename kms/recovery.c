/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Recovery codes as a KMS provider: wraps for the public half of a code, unwraps with the code (doc/kms/recovery.md). It
 * must not know where a code is kept, nor what it opens.
 */
#include "config.h"

#include "kms/recovery.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crypto.h"
#include "base/text.h"
#include "kms/kms_uri.h"
#include "kms/local_file.h"
#include "kms/recovery_code.h"

#define PREFIX "recovery:"
#define PUBLIC_TEXT CMEK_B64URL_LEN(CMEK_X25519_LEN)
#define KEY_INFO "cmekfs recovery key v1"
#define WRAP_INFO "cmekfs recovery wrap v1"

#define BLOB_MAGIC "CMR"
#define BLOB_FORMAT 1 /* the byte behind the magic */
#define BLOB_OFF_PUBLIC 4
#define BLOB_OFF_TEXT (BLOB_OFF_PUBLIC + CMEK_X25519_LEN)
#define BLOB_KEY_LEN 32
#define BLOB_OFF_TAG (BLOB_OFF_TEXT + BLOB_KEY_LEN)
#define BLOB_LEN (BLOB_OFF_TAG + CMEK_TAG_LEN)
_Static_assert(BLOB_LEN == 84, "doc/kms/recovery.md");

struct recovery {
	char *uri;
	uint8_t public[CMEK_X25519_LEN];
	char *passphrase_file; /* or NULL */
	int (*ask)(void *arg, const char *prompt, struct cmek_secret **ret_passphrase, struct cmek_error *err);
	void *ask_arg;
};

static bool recovery_match(const char *uri)
{
	return cmek_kms_uri_service(uri) == CMEK_KMS_SERVICE_RECOVERY;
}

static void recovery_close(void *state)
{
	struct recovery *r = state;

	if (!r)
		return;
	free(r->uri);
	free(r->passphrase_file);
	free(r);
}

static int read_uri(const char *uri, uint8_t public[CMEK_X25519_LEN], struct cmek_error *err)
{
	const char *name = uri + strlen(PREFIX), *colon = strchr(name, ':');
	char copy[CMEK_KMS_LOCAL_NAME_MAX + 1];

	if (colon && (size_t)(colon - name) < sizeof(copy)) {
		memcpy(copy, name, (size_t)(colon - name));
		copy[colon - name] = '\0';
		if (cmek_kms_local_name_ok(copy) &&
		    cmek_b64url_decode(colon + 1, strlen(colon + 1), public, CMEK_X25519_LEN) == CMEK_X25519_LEN)
			return 0;
	}
	return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
			      "'%.200s' is not the key of a recovery code: 'cmekctl slot add --recovery' makes one", uri);
}

static int recovery_open(const char *uri, const struct cmek_kms_principal *principal, const struct cmek_kms_options *opts,
			 void **ret_state, struct cmek_error *err)
{
	struct recovery *r = calloc(1, sizeof(*r));
	int rc;

	(void)principal;
	if (!r)
		return cmek_error_sys(err, ENOMEM, "opening the key %s", uri);
	rc = read_uri(uri, r->public, err);
	if (rc == 0) {
		r->uri = strdup(uri);
		if (opts->passphrase_file)
			r->passphrase_file = strdup(opts->passphrase_file);
		r->ask = opts->ask_passphrase;
		r->ask_arg = opts->ask_arg;
		if (!r->uri || (opts->passphrase_file && !r->passphrase_file))
			rc = cmek_error_sys(err, ENOMEM, "opening the key %s", uri);
	}
	if (rc < 0)
		recovery_close(r);
	else
		*ret_state = r;
	return rc;
}

/* ---- keys ---- */

static int private_of(const struct cmek_secret *code, struct cmek_secret **ret_private, struct cmek_error *err)
{
	struct cmek_secret *bits = NULL;
	int rc = cmek_recovery_code_parse(code, &bits, err);

	if (rc == 0)
		rc = cmek_hkdf(bits, CMEK_KEY_STORE, NULL, 0, KEY_INFO, strlen(KEY_INFO), CMEK_KEY_STORE, CMEK_X25519_LEN,
			       ret_private, err);
	cmek_secret_free(bits);
	return rc;
}

int cmek_recovery_uri(const char *name, const struct cmek_secret *code, char **ret_uri, struct cmek_error *err)
{
	uint8_t public[CMEK_X25519_LEN];
	struct cmek_secret *private = NULL;
	char text[PUBLIC_TEXT + 1];
	int rc;

	if (!cmek_kms_local_name_ok(name))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "'%.100s' is no name for a recovery code: 1 to %d of A-Z a-z 0-9 . _ -, beginning with none "
				      "of . and -", name, CMEK_KMS_LOCAL_NAME_MAX);
	rc = private_of(code, &private, err);
	if (rc == 0)
		rc = cmek_x25519_public(private, CMEK_KEY_STORE, public, err);
	cmek_secret_free(private);
	if (rc < 0)
		return rc;
	cmek_b64url_encode(public, sizeof(public), text);
	if (asprintf(ret_uri, PREFIX "%s:%s", name, text) < 0)
		return cmek_error_sys(err, ENOMEM, "a recovery code");
	return 0;
}

static int get_code(const struct recovery *r, struct cmek_secret **ret_code, struct cmek_error *err)
{
	const char *name = r->uri + strlen(PREFIX);
	char *prompt = NULL;
	int rc;

	if (r->passphrase_file)
		return cmek_local_file_passphrase(r->passphrase_file, ret_code, err);
	if (!r->ask)
		return cmek_error_set(err, CMEK_E_DENIED, ENOTTY,
				      "the recovery code '%.*s' is needed, and there is neither a file with it nor anyone to ask",
				      (int)strcspn(name, ":"), name);
	if (asprintf(&prompt, "Recovery code '%.*s': ", (int)strcspn(name, ":"), name) < 0)
		return cmek_error_sys(err, ENOMEM, "asking for a recovery code");
	rc = r->ask(r->ask_arg, prompt, ret_code, err);
	free(prompt);
	return rc;
}

/* The private half of the handle's key, from the code. */
static int get_private(const struct recovery *r, struct cmek_secret **ret_private, struct cmek_error *err)
{
	struct cmek_secret *code = NULL, *private = NULL;
	uint8_t public[CMEK_X25519_LEN];
	int rc = get_code(r, &code, err);

	if (rc == 0)
		rc = private_of(code, &private, err);
	if (rc == 0)
		rc = cmek_x25519_public(private, CMEK_KEY_STORE, public, err);
	if (rc == 0 && memcmp(public, r->public, sizeof(public)) != 0)
		rc = cmek_error_set(err, CMEK_E_DENIED, EKEYREJECTED, "that is the recovery code of something else than %s", r->uri);
	cmek_secret_free(code);
	if (rc < 0)
		cmek_secret_free(private);
	else
		*ret_private = private;
	return rc;
}

/* The key of one wrap, from either side: our private half and the peer's public one. */
static int wrap_key(const struct cmek_secret *private, const uint8_t *peer, const uint8_t *ephemeral, const uint8_t *public,
		    struct cmek_secret **ret_key, struct cmek_error *err)
{
	uint8_t salt[2 * CMEK_X25519_LEN];
	struct cmek_secret *shared = NULL;
	int rc = cmek_x25519(private, CMEK_KEY_STORE, peer, &shared, err);

	memcpy(salt, ephemeral, CMEK_X25519_LEN);
	memcpy(salt + CMEK_X25519_LEN, public, CMEK_X25519_LEN);
	if (rc == 0)
		rc = cmek_hkdf(shared, CMEK_KEY_STORE, salt, sizeof(salt), WRAP_INFO, strlen(WRAP_INFO), CMEK_KEY_STORE, 32,
			       ret_key, err);
	cmek_secret_free(shared);
	return rc;
}

/* AAD: "cmekfs:volume=<uuid>", "cmekfs:slot=<purpose>" as one text with a NUL behind each. */
#define AAD_MAX 160

static struct iovec build_aad(char buf[AAD_MAX], const struct cmek_kms_context *ctx)
{
	char uuid[CMEK_UUID_TEXT];
	int n;

	cmek_uuid_encode(ctx->volume, uuid);
	n = snprintf(buf, AAD_MAX, "cmekfs:volume=%s%ccmekfs:slot=%s", uuid, 0, ctx->purpose);
	return (struct iovec){ buf, (size_t)n + 1 };
}

/* ---- the operations ---- */

static int recovery_wrap(void *state, const struct cmek_kms_context *ctx, const struct cmek_secret *key,
			 struct cmek_kms_blob *ret_blob, struct cmek_error *err)
{
	static const uint8_t nonce[CMEK_NONCE_LEN]; /* the key is never used again */
	struct cmek_secret *ephemeral = NULL, *wrapping = NULL;
	const struct recovery *r = state;
	uint8_t *b = calloc(1, BLOB_LEN);
	char aad_buf[AAD_MAX];
	struct iovec aad;
	int rc;

	ret_blob->data = b;
	ret_blob->len = BLOB_LEN;
	ret_blob->resolved = strdup(r->uri);
	ret_blob->version = strdup("1");
	if (!b || !ret_blob->resolved || !ret_blob->version)
		return cmek_error_sys(err, ENOMEM, "wrapping a key for %s", r->uri);
	memcpy(b, BLOB_MAGIC, 3);
	b[3] = BLOB_FORMAT;
	rc = cmek_secret_new_random(CMEK_KEY_STORE, CMEK_X25519_LEN, &ephemeral, err);
	if (rc == 0)
		rc = cmek_x25519_public(ephemeral, CMEK_KEY_STORE, b + BLOB_OFF_PUBLIC, err);
	if (rc == 0)
		rc = wrap_key(ephemeral, r->public, b + BLOB_OFF_PUBLIC, r->public, &wrapping, err);
	if (rc == 0) {
		aad = build_aad(aad_buf, ctx);
		rc = cmek_gcm_seal(wrapping, CMEK_KEY_STORE, nonce, &aad, 1, cmek_secret_bytes(key, CMEK_KEY_KEK), BLOB_KEY_LEN,
				   b + BLOB_OFF_TEXT, b + BLOB_OFF_TAG);
		if (rc < 0)
			rc = cmek_error_sys(err, -rc, "wrapping a key for %s", r->uri);
	}
	cmek_secret_free(ephemeral);
	cmek_secret_free(wrapping);
	return rc;
}

static int check_form(const struct recovery *r, const struct cmek_kms_blob *blob, struct cmek_error *err)
{
	if (blob->len != BLOB_LEN || memcmp(blob->data, BLOB_MAGIC, 3) != 0)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the wrapped key was not made for a recovery code");
	if (blob->data[3] != BLOB_FORMAT)
		return cmek_error_set(err, CMEK_E_UNSUPPORTED, EPROTONOSUPPORT,
				      "the wrapped key has format %u; this program knows only format %d", blob->data[3],
				      BLOB_FORMAT);
	if (blob->resolved && strcmp(blob->resolved, r->uri) != 0)
		return cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG, "the key was wrapped for %.200s, not for %s",
				      blob->resolved, r->uri);
	return 0;
}

static int recovery_unwrap(void *state, const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
			   struct cmek_secret **ret_key, struct cmek_kms_blob *ret_fresh, struct cmek_error *err)
{
	static const uint8_t nonce[CMEK_NONCE_LEN];
	struct cmek_secret *private = NULL, *wrapping = NULL, *key = NULL;
	const uint8_t *b = blob->data;
	const struct recovery *r = state;
	char aad_buf[AAD_MAX];
	struct iovec aad;
	int rc;

	(void)ret_fresh; /* a code has no versions */
	rc = check_form(r, blob, err);
	if (rc == 0)
		rc = get_private(r, &private, err);
	if (rc == 0)
		rc = wrap_key(private, b + BLOB_OFF_PUBLIC, b + BLOB_OFF_PUBLIC, r->public, &wrapping, err);
	if (rc == 0)
		rc = cmek_secret_new(CMEK_KEY_KEK, BLOB_KEY_LEN, &key, err);
	if (rc == 0) {
		aad = build_aad(aad_buf, ctx);
		rc = cmek_gcm_open(wrapping, CMEK_KEY_STORE, nonce, &aad, 1, b + BLOB_OFF_TEXT, BLOB_KEY_LEN,
				   cmek_secret_fill(key, CMEK_KEY_KEK), b + BLOB_OFF_TAG);
		if (rc == -EBADMSG)
			rc = cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG,
					    "the wrapped key does not open with the recovery code: it was changed, or is of another "
					    "volume or purpose");
		else if (rc < 0)
			rc = cmek_error_sys(err, -rc, "unwrapping a key with a recovery code");
	}
	cmek_secret_free(private);
	cmek_secret_free(wrapping);
	if (rc < 0)
		cmek_secret_free(key);
	else
		*ret_key = key;
	return rc;
}

/* Nobody but its owner knows what became of the paper. */
static int recovery_describe(void *state, struct cmek_kms_info *ret_info, struct cmek_error *err)
{
	const struct recovery *r = state;

	ret_info->resolved = strdup(r->uri);
	ret_info->state = CMEK_KMS_ENABLED;
	ret_info->primary_version = strdup("1");
	ret_info->origin = strdup("recovery code");
	if (!ret_info->resolved || !ret_info->primary_version || !ret_info->origin)
		return cmek_error_sys(err, ENOMEM, "describing %s", r->uri);
	return 0;
}

const struct cmek_kms_provider cmek_kms_recovery = {
	.name = CMEK_KMS_RECOVERY_NAME,
	.by_hand = true,
	.match = recovery_match,
	.open = recovery_open,
	.close = recovery_close,
	.wrap = recovery_wrap,
	.unwrap = recovery_unwrap,
	.describe = recovery_describe,
};
