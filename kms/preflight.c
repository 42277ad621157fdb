/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The steps of a dry run, in the order in which each needs the one before. It must not know providers, nor who reads
 * the results.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/crypto.h"
#include "base/text.h"
#include "kms/preflight.h"

#define KEK_LEN 32

struct flight {
	struct cmek_kms *kms;
	const struct cmek_kms_context *ctx;
	struct cmek_secret *key;
	struct cmek_kms_blob blob;
};

static uint64_t now_ms(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t); /* can't fail */
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int identity(struct flight *f, struct cmek_preflight_step *step)
{
	char *who = NULL;
	int rc = cmek_kms_identity(f->kms, &who, &step->error);

	if (rc == 0)
		snprintf(step->text, sizeof(step->text), "%s", who);
	free(who);
	return rc;
}

static int describe(struct flight *f, struct cmek_preflight_step *step)
{
	struct cmek_kms_info info = { 0 };
	char date[CMEK_TIME_TEXT] = "";
	int rc = cmek_kms_describe(f->kms, &info, &step->error);

	if (rc == 0) {
		if (info.deletion_date)
			cmek_time_encode(info.deletion_date, date);
		snprintf(step->text, sizeof(step->text), "%s: %s%s%s%s%s", info.resolved, cmek_kms_state_name(info.state),
			 date[0] ? ", deletion " : "", date, info.protection_level && info.protection_level[0] ? ", " : "",
			 info.protection_level ? info.protection_level : "");
	}
	cmek_kms_info_done(&info);
	return rc;
}

static int wrap(struct flight *f, struct cmek_preflight_step *step)
{
	int rc = cmek_secret_new_random(CMEK_KEY_KEK, KEK_LEN, &f->key, &step->error);

	if (rc == 0)
		rc = cmek_kms_wrap(f->kms, f->ctx, f->key, &f->blob, &step->error);
	if (rc == 0)
		snprintf(step->text, sizeof(step->text), "%s%s%s: %zu bytes", f->blob.resolved,
			 f->blob.version[0] ? ", version " : "", f->blob.version, f->blob.len);
	return rc;
}

static int unwrap(struct flight *f, struct cmek_preflight_step *step)
{
	struct cmek_secret *back = NULL;
	int rc = cmek_kms_unwrap(f->kms, f->ctx, &f->blob, &back, NULL, &step->error);

	if (rc == 0 && !cmek_equal(cmek_secret_bytes(back, CMEK_KEY_KEK), cmek_secret_bytes(f->key, CMEK_KEY_KEK), KEK_LEN))
		rc = cmek_error_set(&step->error, CMEK_E_TAMPERED, EBADMSG, "another key came back than was wrapped");
	if (rc == 0)
		snprintf(step->text, sizeof(step->text), "the same key came back");
	cmek_secret_free(back);
	return rc;
}

/* A refusal for whichever reason is what is wanted here; that the service can't be reached is none. */
static int binding(struct flight *f, struct cmek_preflight_step *step)
{
	struct cmek_error refusal = CMEK_ERROR_INIT;
	struct cmek_kms_context other = *f->ctx;
	struct cmek_secret *back = NULL;
	int rc;

	other.volume[15] ^= 1;
	rc = cmek_kms_unwrap(f->kms, &other, &f->blob, &back, NULL, &refusal);
	cmek_secret_free(back);
	if (rc == 0)
		return cmek_error_set(&step->error, CMEK_E_TAMPERED, EBADMSG,
				      "the KMS unwraps for another volume what was wrapped for one: it does not bind wraps to "
				      "their context");
	if (refusal.kind != CMEK_E_TAMPERED && refusal.kind != CMEK_E_DENIED)
		return cmek_error_set(&step->error, refusal.kind, refusal.err, "%s", refusal.text);
	snprintf(step->text, sizeof(step->text), "another volume does not unwrap it");
	return 0;
}

/* What a volume does without: all of it, or what it is not permitted. */
enum need { CURIOSITY, IF_PERMITTED, ALWAYS };

static const struct {
	const char *name;
	int (*take)(struct flight *f, struct cmek_preflight_step *step);
	enum need need;
} steps[CMEK_PREFLIGHT_STEPS] = {
	{ "identity", identity, CURIOSITY }, /* another service tells it, which need not be reachable */
	{ "describe", describe, IF_PERMITTED },
	{ "wrap", wrap, ALWAYS },
	{ "unwrap", unwrap, ALWAYS },
	{ "binding", binding, ALWAYS },
};

/* Without credentials at all (ENOKEY) nothing can be permitted. */
static bool left_out(enum need need, const struct cmek_error *err)
{
	bool forbidden = err->kind == CMEK_E_UNSUPPORTED || (err->kind == CMEK_E_DENIED && err->err == EACCES);

	return need == CURIOSITY || (need == IF_PERMITTED && forbidden);
}

int cmek_kms_preflight(struct cmek_kms *kms, const struct cmek_kms_context *ctx, struct cmek_preflight *ret_preflight,
		       struct cmek_error *err)
{
	struct flight f = { .kms = kms, .ctx = ctx };
	int rc = 0;

	memset(ret_preflight, 0, sizeof(*ret_preflight));
	for (unsigned i = 0; rc == 0 && i < CMEK_PREFLIGHT_STEPS; i++) {
		struct cmek_preflight_step *step = &ret_preflight->steps[ret_preflight->n++];
		uint64_t begin = now_ms();

		step->name = steps[i].name;
		rc = steps[i].take(&f, step);
		step->ms = (unsigned)(now_ms() - begin);
		if (rc == 0)
			continue;
		if (left_out(steps[i].need, &step->error)) {
			step->result = CMEK_PREFLIGHT_LEFT_OUT;
			rc = 0;
		} else {
			step->result = CMEK_PREFLIGHT_FAILED;
			rc = cmek_error_set(err, step->error.kind, step->error.err, "%s", step->error.text);
		}
	}
	cmek_kms_blob_done(&f.blob);
	cmek_secret_free(f.key);
	return rc;
}
