/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Key slots and the KMS: wraps a KEK into a slot, opens a slot. Knows neither the header that holds the slots nor which
 * of them may be trusted.
 */
#include "config.h"

#include "fs/volume/keyslot.h"

#include <errno.h>
#include <stdbool.h>
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

static bool same_kek(const struct cmek_secret *a, const struct cmek_secret *b)
{
	return cmek_secret_len(a) == KEK_LEN && cmek_secret_len(b) == KEK_LEN &&
	       cmek_equal(cmek_secret_bytes(a, CMEK_KEY_KEK), cmek_secret_bytes(b, CMEK_KEY_KEK), KEK_LEN);
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

/* What was wrapped unwraps to the same again. */
static int prove_blob(struct cmek_kms *kms, const struct cmek_kms_context *ctx, const struct cmek_kms_blob *blob,
		      const struct cmek_secret *kek, struct cmek_error *err)
{
	struct cmek_secret *proof = NULL;
	int ret = cmek_kms_unwrap(kms, ctx, blob, &proof, NULL, err);

	if (ret)
		cmek_error_prefix(err, "what %s has wrapped, it does not unwrap", cmek_kms_uri(kms));
	else if (!same_kek(proof, kek))
		ret = cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG, "%s unwraps to another key than it has wrapped",
				     cmek_kms_uri(kms));
	cmek_secret_free(proof);
	return ret;
}

int cmek_keyslot_wrap(struct cmek_kms *kms, const uint8_t volume[16], unsigned id, const char *purpose,
		      const struct cmek_kms_principal *principal, const struct cmek_secret *kek,
		      struct cmek_slot *ret_slot, struct cmek_error *err)
{
	struct cmek_kms_context ctx = context_of(volume, purpose);
	struct cmek_kms_blob blob = { 0 };
	struct cmek_slot slot = { 0 };
	int ret;

	ret = cmek_kms_wrap(kms, &ctx, kek, &blob, err);
	if (!ret)
		ret = prove_blob(kms, &ctx, &blob, kek, err);
	if (ret)
		goto out;
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
	cmek_kms_blob_done(&blob);
	return ret;
}

/* The slot's key, as the slot's principal. */
static int open_key(const struct cmek_slot *slot, const struct cmek_kms_options *opts, struct cmek_kms **ret_kms,
		    struct cmek_error *err)
{
	struct cmek_kms_principal principal = cmek_slot_principal(slot);
	struct cmek_kms *kms = NULL;
	int ret = cmek_kms_open(slot->resolved, &principal, opts, &kms, err);

	if (ret)
		return ret;
	if (strcmp(cmek_kms_provider_name(kms), slot->provider)) {
		ret = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the slot says provider %s, its key is one of %s",
				     slot->provider, cmek_kms_provider_name(kms));
		cmek_kms_close(kms);
		return ret;
	}
	*ret_kms = kms;
	return 0;
}

/* A slot's blob, borrowed: not for cmek_kms_blob_done(). */
static struct cmek_kms_blob blob_of(const struct cmek_slot *slot)
{
	return (struct cmek_kms_blob){ slot->wrapped, slot->wrapped_len, slot->resolved, slot->version };
}

/* Puts the blob (emptied) into the slot, unless the slot could not be read back then. */
static int take_blob(struct cmek_slot *slot, struct cmek_kms_blob *blob, struct cmek_error *err)
{
	struct cmek_slot next = *slot;
	int ret;

	next.wrapped = blob->data;
	next.wrapped_len = blob->len;
	next.resolved = blob->resolved ? blob->resolved : slot->resolved;
	next.rewrapped = (int64_t)time(NULL);
	next.version = strdup(blob->version ? blob->version : "");
	if (!next.version)
		return cmek_error_sys(err, ENOMEM, "key slot %u", slot->id);
	ret = check_slot(&next, err);
	if (ret) {
		free(next.version);
		return ret;
	}
	free(slot->version);
	free(slot->wrapped);
	if (next.resolved != slot->resolved)
		free(slot->resolved);
	blob->data = NULL;
	blob->resolved = NULL;
	*slot = next;
	return 0;
}

/* A new blob for the slot, of the KEK it has (`kept`) or of another one. */
static int renew(const uint8_t volume[16], struct cmek_slot *slot, const struct cmek_kms_options *opts,
		 const struct cmek_secret *kek, bool kept, struct cmek_error *err)
{
	struct cmek_kms_context ctx = context_of(volume, slot->purpose);
	const struct cmek_kms_blob old = blob_of(slot);
	struct cmek_kms_blob fresh = { 0 };
	struct cmek_kms *kms = NULL;
	int ret;

	ret = open_key(slot, opts, &kms, err);
	if (!ret && kept)
		ret = cmek_kms_rewrap(kms, &ctx, &old, &fresh, err);
	else if (!ret)
		ret = cmek_kms_wrap(kms, &ctx, kek, &fresh, err);
	/* A recovery code stays in its safe when the volume's key changes. */
	if (!ret && (kept || !cmek_kms_is_by_hand(kms)))
		ret = prove_blob(kms, &ctx, &fresh, kek, err);
	if (!ret)
		ret = take_blob(slot, &fresh, err);
	cmek_kms_blob_done(&fresh);
	cmek_kms_close(kms);
	return ret;
}

int cmek_keyslot_rewrap(const uint8_t volume[16], struct cmek_slot *slot, const struct cmek_kms_options *opts,
			const struct cmek_secret *kek, struct cmek_error *err)
{
	return renew(volume, slot, opts, kek, true, err);
}

int cmek_keyslot_refill(const uint8_t volume[16], struct cmek_slot *slot, const struct cmek_kms_options *opts,
			const struct cmek_secret *kek, struct cmek_error *err)
{
	return renew(volume, slot, opts, kek, false, err);
}

int cmek_keyslot_prove(const uint8_t volume[16], const struct cmek_slot *slot, const struct cmek_kms_options *opts,
		       const struct cmek_secret *kek, struct cmek_error *err)
{
	struct cmek_secret *proof = NULL;
	int ret = cmek_keyslot_unwrap(volume, slot, opts, &proof, NULL, err);

	if (!ret && !same_kek(proof, kek))
		ret = cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG, "it holds another key than the volume's");
	cmek_secret_free(proof);
	return ret;
}

int cmek_keyslot_unwrap(const uint8_t volume[16], const struct cmek_slot *slot, const struct cmek_kms_options *opts,
			struct cmek_secret **ret_kek, struct cmek_kms_blob *ret_fresh, struct cmek_error *err)
{
	struct cmek_kms_context ctx = context_of(volume, slot->purpose);
	const struct cmek_kms_blob blob = blob_of(slot);
	struct cmek_kms_blob fresh = { 0 };
	struct cmek_secret *kek = NULL;
	struct cmek_kms *kms = NULL;
	int ret;

	ret = open_key(slot, opts, &kms, err);
	if (!ret)
		ret = cmek_kms_unwrap(kms, &ctx, &blob, &kek, ret_fresh ? &fresh : NULL, err);
	if (ret)
		goto out;
	if (cmek_secret_len(kek) != KEK_LEN) {
		ret = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the slot holds %zu bytes, not a key of %d",
				     cmek_secret_len(kek), KEK_LEN);
		goto out;
	}
	*ret_kek = kek;
	kek = NULL;
	if (ret_fresh)
		*ret_fresh = fresh;
	memset(&fresh, 0, sizeof(fresh));
out:
	cmek_kms_blob_done(&fresh);
	cmek_secret_free(kek);
	cmek_kms_close(kms);
	return ret;
}

/* Without the members that we don't know. */
static int copy_slot(const struct cmek_slot *slot, struct cmek_slot *ret_copy, struct cmek_error *err)
{
	char *text = NULL;
	size_t len = 0;
	int ret = cmek_slot_encode(slot, &text, &len, err);

	if (!ret)
		ret = cmek_slot_decode(text, len, ret_copy, err);
	free(text);
	return ret;
}

int cmek_keyslot_renew(const uint8_t volume[16], const struct cmek_slot *slot, const struct cmek_kms_options *opts,
		       const struct cmek_secret *kek, struct cmek_kms_blob *fresh, struct cmek_slot *ret_renewed,
		       struct cmek_error *err)
{
	struct cmek_kms_context ctx = context_of(volume, slot->purpose);
	struct cmek_slot renewed = { 0 };
	struct cmek_kms *kms = NULL;
	int ret;

	ret = open_key(slot, opts, &kms, err);
	if (!ret)
		ret = prove_blob(kms, &ctx, fresh, kek, err);
	if (!ret)
		ret = copy_slot(slot, &renewed, err);
	if (!ret)
		ret = take_blob(&renewed, fresh, err);
	if (!ret) {
		*ret_renewed = renewed;
		memset(&renewed, 0, sizeof(renewed));
	}
	cmek_slot_done(&renewed);
	cmek_kms_close(kms);
	return ret;
}

int cmek_keyslot_take(struct cmek_slot *slot, struct cmek_slot *renewed, struct cmek_error *err)
{
	/* The slot keeps its own name of the key: by that one it is pinned. */
	struct cmek_kms_blob blob = { renewed->wrapped, renewed->wrapped_len, NULL, renewed->version };
	int ret;

	if (slot->id != renewed->id || strcmp(slot->purpose, renewed->purpose) ||
	    strcmp(slot->resolved, renewed->resolved))
		return cmek_error_set(err, CMEK_E_MISMATCH, ESTALE, "slot %u is for %s, not for %s", slot->id, slot->resolved,
				      renewed->resolved);
	ret = take_blob(slot, &blob, err);
	if (!ret) {
		renewed->wrapped = NULL;
		renewed->wrapped_len = 0;
	}
	return ret;
}

static int unwrap_here(void *arg, const uint8_t volume[16], const struct cmek_slot *slot, struct cmek_secret **ret_kek,
		       struct cmek_error *err)
{
	return cmek_keyslot_unwrap(volume, slot, arg, ret_kek, NULL, err);
}

struct cmek_unwrapper cmek_unwrapper_kms(const struct cmek_kms_options *opts)
{
	return (struct cmek_unwrapper){ .arg = (void *)opts, .unwrap = unwrap_here };
}
