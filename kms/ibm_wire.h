/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_IBM_WIRE_H
#define CMEK_KMS_IBM_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"
#include "kms/http.h"
#include "kms/kms.h"

/*
 * The bodies of IBM Key Protect's API (v2): requests out of what we have, replies into what we need. Pure functions,
 * thread-safe. A reply that is not what it should be: kind bad-format; another key's answer: tampered, -EBADMSG.
 * A blob is the service's ciphertext, the text that it gives, as it is.
 */

/* Bodies of wrap, and of unwrap and rewrap, as CMEK_KEY_TEXT, the caller's; aad: volume and purpose. */
int cmek_ibm_wrap_request(const struct cmek_kms_context *ctx, const struct cmek_secret *key,
			  struct cmek_secret **ret_body, struct cmek_error *err);
int cmek_ibm_unwrap_request(const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
			    struct cmek_secret **ret_body, struct cmek_error *err);

/* Replies to wrap and rewrap. crn: the key that was asked, becomes ret_blob->resolved. */
int cmek_ibm_wrap_reply(const void *text, size_t len, const char *crn, struct cmek_kms_blob *ret_blob,
			struct cmek_error *err);
/* *ret_fresh: wrapped anew under the newest version, data == NULL when the service did not do that. */
int cmek_ibm_unwrap_reply(const void *text, size_t len, const char *crn, struct cmek_secret **ret_key,
			  struct cmek_kms_blob *ret_fresh, struct cmek_error *err);

/*
 * GET of a key's metadata at the time now: all of *ret_info but the versions. key_id: the key that was asked. A destroyed
 * key that can still be restored is pending deletion until then; the remark has the rules of deletion with their dates.
 * ring (101 bytes): its key ring, "" if not told. Kind usage: a standard key, which can't wrap.
 */
#define CMEK_IBM_RING_ROOM 101
int cmek_ibm_metadata_reply(const void *text, size_t len, const char *crn, const char *key_id, int64_t now,
			    struct cmek_kms_info *ret_info, char ret_ring[CMEK_IBM_RING_ROOM], struct cmek_error *err);
/* One page of versions, added to info; *ret_n is how many it had. */
int cmek_ibm_versions_reply(const void *text, size_t len, struct cmek_kms_info *info, size_t *ret_n,
			    struct cmek_error *err);

/* One page of registrations: who uses the key. Added to the array of *n; *ret_page is how many the page had. */
int cmek_ibm_registrations_reply(const void *text, size_t len, struct cmek_kms_registration **regs, size_t *n,
				 size_t *ret_page, struct cmek_error *err);
/* The reply to a new key: its CRN, malloced. */
int cmek_ibm_create_reply(const void *text, size_t len, char **ret_crn, struct cmek_error *err);

/* cmek_http_request.read_problem for the service's answers and those of IAM: the code of the first reason. */
void cmek_ibm_read_problem(const struct cmek_http_response *resp, struct cmek_problem *ret_problem);

#endif
