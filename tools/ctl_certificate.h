/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TOOLS_CTL_CERTIFICATE_H
#define CMEK_TOOLS_CTL_CERTIFICATE_H

#include <jansson.h>

#include "base/err.h"

/*
 * Certificates of destruction: a JSON object in a file, signed if there is a key. What is signed are the bytes of the
 * member "certificate" as JSON without spaces, members sorted by name, in UTF-8; "signature" has the algorithm, the
 * public key and the signature, both in base64.
 */

/* Before anything is destroyed: the file is not there yet, its directory is, and the key can sign. */
int cmek_ctl_certificate_check(const char *file, const char *sign_key, struct cmek_error *err);
/*
 * Writes *json, which becomes {"certificate": ..., "signature": ...}, to the file, durably. sign_key NULL: signature is
 * null. On failure *json is still what it was, or already the signed one.
 */
int cmek_ctl_certificate_write(json_t **json, const char *file, const char *sign_key, struct cmek_error *err);

#endif
