/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_RECOVERY_H
#define CMEK_KMS_RECOVERY_H

#include "kms/kms.h"

/*
 * Recovery codes as a KMS (doc/kms/recovery.md): a code on paper is the private half of a key pair, the public half is in
 * the URI, recovery:NAME:PUBLIC. So anybody wraps, and only who has the code unwraps. The code is read and asked for as the
 * passphrase of a local key store is.
 */
extern const struct cmek_kms_provider cmek_kms_recovery;

/* The URI of a code (a CMEK_KEY_TEXT): malloced. name: what people call it. Kinds usage (the name), denied (the code). */
int cmek_recovery_uri(const char *name, const struct cmek_secret *code, char **ret_uri, struct cmek_error *err);

#endif
