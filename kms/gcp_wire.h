/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_GCP_WIRE_H
#define CMEK_KMS_GCP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"
#include "kms/http.h"
#include "kms/kms.h"

/*
 * The bodies of Google Cloud KMS's REST API (v1): requests out of what we have, replies into what we need. Pure
 * functions, thread-safe. A reply that is not what it should be: kind bad-format; a checksum (CRC32C) that does not
 * fit, there or here: -EILSEQ, worth another try; another key's answer: tampered, -EBADMSG.
 */

/*
 * The additional authenticated data of every wrap: "cmekfs:volume=<uuid>,cmekfs:slot=<purpose>". Returns its length;
 * out gets a NUL, too.
 */
#define CMEK_GCP_AAD_MAX 128
size_t cmek_gcp_aad(const struct cmek_kms_context *ctx, char out[CMEK_GCP_AAD_MAX]);

/* Bodies of :encrypt and :decrypt as CMEK_KEY_TEXT, the caller's. */
int cmek_gcp_encrypt_request(const struct cmek_kms_context *ctx, const struct cmek_secret *key,
			     struct cmek_secret **ret_body, struct cmek_error *err);
int cmek_gcp_decrypt_request(const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
			     struct cmek_secret **ret_body, struct cmek_error *err);

/* key_name: the key that was asked. *ret_blob is filled (its `resolved` is key_name). */
int cmek_gcp_encrypt_reply(const void *text, size_t len, const char *key_name, struct cmek_kms_blob *ret_blob,
			   struct cmek_error *err);
/* *ret_primary: the version that wrapped it is still the primary one (false: a rewrap is due). */
int cmek_gcp_decrypt_reply(const void *text, size_t len, struct cmek_secret **ret_key, bool *ret_primary,
			   struct cmek_error *err);

/* GET of a key: all of *ret_info but the versions. Kind usage: it is not a key that encrypts and decrypts. */
int cmek_gcp_key_reply(const void *text, size_t len, const char *key_name, struct cmek_kms_info *ret_info,
		       struct cmek_error *err);
/* One page of its versions, added to info; *ret_next (malloced): the token of the next page, NULL if it was the last. */
int cmek_gcp_versions_reply(const void *text, size_t len, const char *key_name, struct cmek_kms_info *info,
			    char **ret_next, struct cmek_error *err);
/* A version that was made or changed: its number (malloced, NULL allowed) and when it will be destroyed (0 = never). */
int cmek_gcp_version_reply(const void *text, size_t len, const char *key_name, char **ret_id, int64_t *ret_destroy,
			   struct cmek_error *err);

/*
 * cmek_http_request.read_problem for all of Google's answers, those of its token endpoint (RFC 6749 s5.2) too. The code is
 * the status ("PERMISSION_DENIED"), or, where the answer tells it, the state that a version of a key is in
 * ("KEY_DISABLED", "KEY_DESTROY_SCHEDULED", ...), or "CRC32C" for a request whose checksum did not fit.
 */
void cmek_gcp_read_problem(const struct cmek_http_response *resp, struct cmek_problem *ret_problem);

#endif
