/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_LOCAL_ADMIN_H
#define CMEK_KMS_LOCAL_ADMIN_H

#include "kms/kms.h"

/* Administrative operations of the local provider, as struct cmek_kms_provider has them. state: struct cmek_local. */
int cmek_local_describe(void *state, struct cmek_kms_info *ret_info, struct cmek_error *err);
int cmek_local_list(void *state, struct cmek_kms_info **ret_infos, size_t *ret_n, struct cmek_error *err);
int cmek_local_create(void *state, const struct cmek_kms_create *how, struct cmek_error *err);
int cmek_local_rotate(void *state, char **ret_version, struct cmek_error *err);
int cmek_local_enable(void *state, struct cmek_error *err);
int cmek_local_disable(void *state, struct cmek_error *err);
int cmek_local_schedule_deletion(void *state, unsigned days, int64_t *ret_date, struct cmek_error *err);
int cmek_local_cancel_deletion(void *state, struct cmek_error *err);

#endif
