/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_PREFLIGHT_H
#define CMEK_KMS_PREFLIGHT_H

#include "kms/kms.h"

/*
 * A dry run with a key: everything that a volume will want of it, step by step, with a key that is thrown away. Blocks as
 * the steps do; nothing is changed in the KMS.
 */
enum cmek_preflight_result {
	CMEK_PREFLIGHT_OK,
	CMEK_PREFLIGHT_LEFT_OUT, /* not permitted or not to be had: a volume does without */
	CMEK_PREFLIGHT_FAILED,   /* a volume needs it; the steps behind it were not tried */
};

struct cmek_preflight_step {
	const char *name; /* "identity", "describe", "wrap", "unwrap", "binding" */
	enum cmek_preflight_result result;
	unsigned ms;
	char text[512];          /* what was found */
	struct cmek_error error; /* of one that is not OK */
};

#define CMEK_PREFLIGHT_STEPS 5
struct cmek_preflight {
	struct cmek_preflight_step steps[CMEK_PREFLIGHT_STEPS];
	unsigned n; /* that were taken */
};

/*
 * Identity, describe, wrap, unwrap, and that another volume does not unwrap it. ctx: for whom; policies may depend on it.
 * 0, or -errno with the error of the step that failed. *ret_preflight is filled in both cases.
 */
int cmek_kms_preflight(struct cmek_kms *kms, const struct cmek_kms_context *ctx, struct cmek_preflight *ret_preflight,
		       struct cmek_error *err);

#endif
