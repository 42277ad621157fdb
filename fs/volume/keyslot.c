/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Key slots and the KMS: wraps a KEK into a slot, opens a slot. Knows neither the header that holds the slots nor which
 * of them may be trusted.
 */
#include "config.h"

#include "fs/volume/keyslot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/crypto.h"

#define KEK_LEN 32

static struct cmek_kms_context context_of(const uint8_t volume[16], const char *purpose)
{
	struct cmek_kms_context ctx = { .purpose = purpose };

	memcpy(ctx.volume, volume, 16);
	return ctx;
}

/* A copy of text; NULL stays NULL. */
static int copy_text(const char *text, char **ret_copy)
{
	if (!text)
		return 0;
	*ret_copy = strdup(text);
	return *ret_copy ? 0 : -ENOMEM;
}

/* Everything of a slot but its blob. */
static int fill_slot(struct cmek_kms *kms, unsigned id, const char *purpose, const struct cmek_kms_principal *principal,
		     const struct cmek_kms_blob *blob, struct cmek_slot *slot)
{
	slot->id = id;
	slot->created = slot->rewrapped = (int64_t)time(NULL);
	if (copy_text(purpose, &slot->purpose) || copy_text(cmek_kms_provider_name(kms), &slot->provider) ||
	    copy_text(cmek_kms_uri(kms), &slot->key) || copy_text(blob->resolved, &slot->resolved) ||
	    copy_text(blob->version ? blob->version : "", &slot->version) || copy_text("", &slot->region))
		return -ENOMEM;
	if (principal && (copy_text(principal->role, &slot->role) ||
			  copy_text(principal->external_id, &slot->external_id) ||
			  copy_text(principal->service_account, &slot->service_account) ||
			  copy_text(principal->profile, &slot->profile)))
		return -ENOMEM;
	return 0;
}

/* The slot as it will be read: what would be refused then is refused now. */
static int check_slot(const struct cmek_slot *slot, struct cmek_error *err)
{
	struct cmek_slot proof = { 0 };
	char *text = NULL;
	size_t len = 0;
	int ret = cmek_slot_encode(slot, &text, &len, err);

	if (!ret)
		ret = cmek_slot_decode(text, len, &proof, err);
	cmek_slot_done(&proof);
	free(text);
	return ret;
}

int cmek_keyslot_wrap(struct cmek_kms *kms, const uint8_t volume[16], unsigned id, const char *purpose,
		      const struct cmek_kms_principal *principal, const struct cmek_secret *kek,
		      struct cmek_slot *ret_slot, struct cmek_error *err)
{
	struct cmek_kms_context ctx = context_of(volume, purpose);
	struct cmek_kms_blob blob = { 0 };
	struct cmek_slot slot = { 0 };
	struct cmek_secret *proof = NULL;
	int ret;

	ret = cmek_kms_wrap(kms, &ctx, kek, &blob, err);
	if (ret)
		goto out;
	ret = cmek_kms_unwrap(kms, &ctx, &blob, &proof, NULL, err);
	if (ret) {
		cmek_error_prefix(err, "what %s has wrapped, it does not unwrap", cmek_kms_uri(kms));
		goto out;
	}
	if (cmek_secret_len(proof) != KEK_LEN ||
	    !cmek_equal(cmek_secret_bytes(proof, CMEK_KEY_KEK), cmek_secret_bytes(kek, CMEK_KEY_KEK), KEK_LEN)) {
		ret = cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG, "%s unwraps to another key than it has wrapped",
				     cmek_kms_uri(kms));
		goto out;
	}
	if (fill_slot(kms, id, purpose, principal, &blob, &slot)) {
		ret = cmek_error_sys(err, ENOMEM, "key slot %u", id);
		goto out;
	}
	slot.wrapped = blob.data;
	slot.wrapped_len = blob.len;
	blob.data = NULL;
	ret = check_slot(&slot, err);
	if (ret)
		goto out;
	*ret_slot = slot;
	memset(&slot, 0, sizeof(slot));
out:
	cmek_slot_done(&slot);
	cmek_secret_free(proof);
	cmek_kms_blob_done(&blob);
	return ret;
}

int cmek_keyslot_unwrap(const uint8_t volume[16], const struct cmek_slot *slot, const struct cmek_kms_options *opts,
			struct cmek_secret **ret_kek, struct cmek_error *err)
{
	struct cmek_kms_context ctx = context_of(volume, slot->purpose);
	struct cmek_kms_principal principal = cmek_slot_principal(slot);
	/* Borrows from the slot: not for cmek_kms_blob_done(). */
	const struct cmek_kms_blob blob = { slot->wrapped, slot->wrapped_len, slot->resolved, slot->version };
	struct cmek_secret *kek = NULL;
	struct cmek_kms *kms = NULL;
	int ret;

	ret = cmek_kms_open(slot->resolved, &principal, opts, &kms, err);
	if (ret)
		return ret;
	if (strcmp(cmek_kms_provider_name(kms), slot->provider)) {
		ret = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the slot says provider %s, its key is one of %s",
				     slot->provider, cmek_kms_provider_name(kms));
		goto out;
	}
	ret = cmek_kms_unwrap(kms, &ctx, &blob, &kek, NULL, err);
	if (ret)
		goto out;
	if (cmek_secret_len(kek) != KEK_LEN) {
		ret = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the slot holds %zu bytes, not a key of %d",
				     cmek_secret_len(kek), KEK_LEN);
		goto out;
	}
	*ret_kek = kek;
	kek = NULL;
out:
	cmek_secret_free(kek);
	cmek_kms_close(kms);
	return ret;
}

static int unwrap_here(void *arg, const uint8_t volume[16], const struct cmek_slot *slot, struct cmek_secret **ret_kek,
		       struct cmek_error *err)
{
	return cmek_keyslot_unwrap(volume, slot, arg, ret_kek, err);
}

struct cmek_unwrapper cmek_unwrapper_kms(const struct cmek_kms_options *opts)
{
	return (struct cmek_unwrapper){ .arg = (void *)opts, .unwrap = unwrap_here };
}
