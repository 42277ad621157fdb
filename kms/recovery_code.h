/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_RECOVERY_CODE_H
#define CMEK_KMS_RECOVERY_CODE_H

#include "base/err.h"
#include "base/secret.h"

/*
 * Recovery codes: 240 random bits as text for paper, "K7Q2W-..." (doc/kms/recovery.md section 1). 12 groups of five
 * characters of Crockford's base 32, of which the last checks the others, so that a typing error is told by its group.
 */
#define CMEK_RECOVERY_GROUPS 12
#define CMEK_RECOVERY_TEXT_LEN (CMEK_RECOVERY_GROUPS * 6 - 1)
#define CMEK_RECOVERY_BYTES 30

/* A new one: a CMEK_KEY_TEXT of CMEK_RECOVERY_TEXT_LEN. */
int cmek_recovery_code_new(struct cmek_secret **ret_code, struct cmek_error *err);
/*
 * What somebody typed (a CMEK_KEY_TEXT): either case, O for 0, I and L for 1, spaces and hyphens wherever. *ret_bits: a
 * CMEK_KEY_STORE of CMEK_RECOVERY_BYTES. Kind denied, -EKEYREJECTED: says which group does not check, or what else is wrong.
 */
int cmek_recovery_code_parse(const struct cmek_secret *code, struct cmek_secret **ret_bits, struct cmek_error *err);

#endif
