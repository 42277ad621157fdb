/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The local key store as a KMS provider: the wrapped blob, and the table of operations (doc/kms/local.md). It does not
 * know where the store is, nor where its master key comes from.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crypto.h"
#include "base/text.h"
#include "kms/local.h"
#include "kms/local_admin.h"
#include "kms/local_handle.h"

/* The wrapped blob. */
#define BLOB_MAGIC "CML"
#define BLOB_FORMAT 1 /* the byte behind the magic */
#define BLOB_OFF_VERSION 4
#define BLOB_OFF_SALT 8
#define BLOB_SALT_LEN 16
#define BLOB_OFF_NONCE (BLOB_OFF_SALT + BLOB_SALT_LEN)
#define BLOB_OFF_TEXT (BLOB_OFF_NONCE + CMEK_NONCE_LEN)
#define BLOB_KEY_LEN 32
#define BLOB_OFF_TAG (BLOB_OFF_TEXT + BLOB_KEY_LEN)
#define BLOB_LEN (BLOB_OFF_TAG + CMEK_TAG_LEN)
#define BLOB_INFO "cmekfs local wrap v1"
_Static_assert(BLOB_LEN == 84, "doc/kms/local.md");

static bool local_match(const char *uri)
{
	return cmek_kms_uri_service(uri) == CMEK_KMS_SERVICE_LOCAL;
}

static int local_open(const char *uri, const struct cmek_kms_principal *principal, const struct cmek_kms_options *opts,
		      void **ret_state, struct cmek_error *err)
{
	struct cmek_local *l = NULL;
	int rc = cmek_local_handle_new(uri, principal, opts, &l, err);

	if (rc == 0)
		*ret_state = l;
	return rc;
}

static void local_close(void *state)
{
	cmek_local_handle_free(state);
}

/* Reads the store and finds the key, which must be enabled. *ret_key lies in *ret_store, which the caller frees. */
static int load_usable(struct cmek_local *l, struct cmek_local_store *ret_store, struct cmek_local_key **ret_key,
		       struct cmek_error *err)
{
	int rc = cmek_local_load_existing(l, ret_store, err);

	if (rc == 0)
		rc = cmek_local_find(l, ret_store, ret_key, err);
	if (rc == 0)
		rc = cmek_local_check_state(l, *ret_key, CMEK_KMS_ENABLED, cmek_local_now(), err);
	return rc;
}

/*
 * AAD: "cmekfs:volume=<uuid>", "cmekfs:slot=<purpose>", the key's name, each behind its length (2 bytes), then the
 * version (4 bytes). buf holds the longest one.
 */
#define AAD_MAX (3 * 2 + 64 + 64 + CMEK_KMS_LOCAL_NAME_MAX + 4)

static void put_text(uint8_t *buf, size_t *n, const char *label, const char *text)
{
	size_t label_len = strlen(label), len = strlen(text);

	cmek_store16(buf + *n, (uint16_t)(label_len + len));
	memcpy(buf + *n + 2, label, label_len);
	memcpy(buf + *n + 2 + label_len, text, len);
	*n += 2 + label_len + len;
}

static struct iovec build_aad(uint8_t buf[AAD_MAX], const struct cmek_kms_context *ctx, const char *name,
			      uint32_t version)
{
	char uuid[CMEK_UUID_TEXT];
	size_t n = 0;

	cmek_uuid_encode(ctx->volume, uuid);
	put_text(buf, &n, "cmekfs:volume=", uuid);
	put_text(buf, &n, "cmekfs:slot=", ctx->purpose);
	put_text(buf, &n, "", name);
	cmek_store32(buf + n, version);
	return (struct iovec){ buf, n + 4 };
}

/* The key of one wrap: fresh for each, so that random nonces never come near their bound (SP 800-38D s8.3). */
static int wrap_key(struct cmek_local *l, const struct cmek_local_store *store, const struct cmek_local_key *key,
		    uint32_t version, const uint8_t salt[BLOB_SALT_LEN], struct cmek_secret **ret_key,
		    struct cmek_error *err)
{
	struct cmek_secret *material = NULL;
	int rc;

	rc = cmek_local_key_material(store, key, version, &l->keys, &material, err);
	if (rc == 0)
		rc = cmek_hkdf(material, CMEK_KEY_STORE, salt, BLOB_SALT_LEN, BLOB_INFO, strlen(BLOB_INFO),
			       CMEK_KEY_STORE, CMEK_LOCAL_KEY_LEN, ret_key, err);
	cmek_secret_free(material);
	return rc;
}

static int local_wrap(void *state, const struct cmek_kms_context *ctx, const struct cmek_secret *secret,
		      struct cmek_kms_blob *ret_blob, struct cmek_error *err)
{
	struct cmek_local *l = state;
	struct cmek_local_store store = { 0 };
	struct cmek_local_key *key = NULL;
	struct cmek_secret *wrapping = NULL;
	uint8_t aad_buf[AAD_MAX], *b;
	struct iovec aad;
	uint32_t version;
	int rc;

	rc = load_usable(l, &store, &key, err);
	if (rc < 0)
		goto out;
	version = (uint32_t)key->n_versions;
	ret_blob->data = b = calloc(1, BLOB_LEN);
	ret_blob->len = BLOB_LEN;
	ret_blob->resolved = strdup(l->uri);
	if (!b || !ret_blob->resolved || asprintf(&ret_blob->version, "%" PRIu32, version) < 0) {
		ret_blob->version = NULL;
		rc = cmek_error_sys(err, ENOMEM, "wrapping a key under %s", l->uri);
		goto out;
	}
	memcpy(b, BLOB_MAGIC, 3);
	b[3] = BLOB_FORMAT;
	cmek_store32(b + BLOB_OFF_VERSION, version);
	cmek_random(b + BLOB_OFF_SALT, BLOB_SALT_LEN + CMEK_NONCE_LEN);
	rc = wrap_key(l, &store, key, version, b + BLOB_OFF_SALT, &wrapping, err);
	if (rc < 0)
		goto out;
	aad = build_aad(aad_buf, ctx, key->name, version);
	rc = cmek_gcm_seal(wrapping, CMEK_KEY_STORE, b + BLOB_OFF_NONCE, &aad, 1, cmek_secret_bytes(secret, CMEK_KEY_KEK),
			   BLOB_KEY_LEN, b + BLOB_OFF_TEXT, b + BLOB_OFF_TAG);
	if (rc < 0)
		rc = cmek_error_sys(err, -rc, "wrapping a key under %s", l->uri);
out:
	cmek_secret_free(wrapping);
	cmek_local_store_done(&store);
	return rc;
}

/* The form of a blob and the key that it names, before anything is read. */
static int check_form(const struct cmek_local *l, const struct cmek_kms_blob *blob, uint32_t *ret_version,
		      struct cmek_error *err)
{
	if (blob->len != BLOB_LEN || memcmp(blob->data, BLOB_MAGIC, 3) != 0)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the wrapped key was not made by a local key store");
	if (blob->data[3] != BLOB_FORMAT)
		return cmek_error_set(err, CMEK_E_UNSUPPORTED, EPROTONOSUPPORT,
				      "the wrapped key has format %u; this program knows only format %d", blob->data[3],
				      BLOB_FORMAT);
	*ret_version = cmek_load32(blob->data + BLOB_OFF_VERSION);
	if (*ret_version == 0)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the wrapped key names version 0 of its key");
	if (blob->resolved && strcmp(blob->resolved, l->uri) != 0)
		return cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG, "the key was wrapped by %.100s, not by %s",
				      blob->resolved, l->uri);
	return 0;
}

static int check_version(const struct cmek_local *l, const struct cmek_local_key *key, uint32_t version,
			 struct cmek_error *err)
{
	if (version > key->n_versions)
		return cmek_error_set(err, CMEK_E_NOT_FOUND, ENOKEY,
				      "the key store %s has no version %" PRIu32 " of %s, which wrapped the key", l->path,
				      version, l->uri);
	if (key->versions[version - 1].destroyed)
		return cmek_error_set(err, CMEK_E_KEY_DESTROYED, EKEYREVOKED,
				      "version %" PRIu32 " of %s, which wrapped the key, was destroyed (key store %s)",
				      version, l->uri, l->path);
	return 0;
}

static int local_unwrap(void *state, const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
			struct cmek_secret **ret_key, struct cmek_kms_blob *ret_fresh, struct cmek_error *err)
{
	struct cmek_local *l = state;
	struct cmek_local_store store = { 0 };
	struct cmek_local_key *key = NULL;
	struct cmek_secret *wrapping = NULL, *out_key = NULL;
	uint8_t aad_buf[AAD_MAX];
	const uint8_t *b = blob->data;
	struct iovec aad;
	uint32_t version = 0;
	int rc;

	(void)ret_fresh; /* a local blob stays good: a fresh one is made by rewrap */
	rc = check_form(l, blob, &version, err);
	if (rc == 0)
		rc = load_usable(l, &store, &key, err);
	if (rc == 0)
		rc = check_version(l, key, version, err);
	if (rc == 0)
		rc = wrap_key(l, &store, key, version, b + BLOB_OFF_SALT, &wrapping, err);
	if (rc == 0)
		rc = cmek_secret_new(CMEK_KEY_KEK, BLOB_KEY_LEN, &out_key, err);
	if (rc < 0)
		goto out;
	aad = build_aad(aad_buf, ctx, key->name, version);
	rc = cmek_gcm_open(wrapping, CMEK_KEY_STORE, b + BLOB_OFF_NONCE, &aad, 1, b + BLOB_OFF_TEXT, BLOB_KEY_LEN,
			   cmek_secret_fill(out_key, CMEK_KEY_KEK), b + BLOB_OFF_TAG);
	if (rc == -EBADMSG) {
		rc = cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG,
				    "the wrapped key does not authenticate under version %" PRIu32 " of %s (key store %s): it "
				    "was changed, or made for another volume or slot, or by another key store",
				    version, l->uri, l->path);
	} else if (rc < 0) {
		rc = cmek_error_sys(err, -rc, "unwrapping a key under %s", l->uri);
	} else {
		*ret_key = out_key;
		out_key = NULL;
	}
out:
	cmek_secret_free(out_key);
	cmek_secret_free(wrapping);
	cmek_local_store_done(&store);
	return rc;
}

const struct cmek_kms_provider cmek_kms_local = {
	.name = "local",
	.match = local_match,
	.open = local_open,
	.close = local_close,
	.wrap = local_wrap,
	.unwrap = local_unwrap,
	.describe = cmek_local_describe,
	.create = cmek_local_create,
	.rotate = cmek_local_rotate,
	.enable = cmek_local_enable,
	.disable = cmek_local_disable,
	.schedule_deletion = cmek_local_schedule_deletion,
	.cancel_deletion = cmek_local_cancel_deletion,
	.list = cmek_local_list,
};
