/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_AWS_H
#define CMEK_KMS_AWS_H

#include "kms/kms.h"

/* AWS KMS; doc/kms/aws.md. */
extern const struct cmek_kms_provider cmek_kms_aws;

#endif
