/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_LOCAL_H
#define CMEK_KMS_LOCAL_H

#include "kms/kms.h"

/* The local key store as a KMS: doc/kms/local.md. */
extern const struct cmek_kms_provider cmek_kms_local;

#endif
