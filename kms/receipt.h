/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_RECEIPT_H
#define CMEK_KMS_RECEIPT_H

#include <stdint.h>

/* A request that a key service answered: for records that somebody may want to compare with the service's own. */
struct cmek_kms_receipt {
	char what[64];       /* "AWS KMS, ScheduleKeyDeletion" */
	char request_id[96]; /* the service's name for it, "" if it gave none */
	long status;         /* HTTP */
	int64_t date;        /* the service's clock, Unix seconds, 0 = not told */
};

#endif
