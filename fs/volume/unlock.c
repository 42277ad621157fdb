/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Opens a volume's keys: which slots may be tried, in which order, and what to make of a header copy once its HMAC can
 * be checked. Does no I/O of its own, and does not know who unwraps.
 */
#include "config.h"

#include "fs/volume/unlock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

/* What happened to the slots so far, as text, with the error that stands for all of them. */
struct story {
	char text[CMEK_ERROR_TEXT_MAX];
	enum cmek_kind kind;
	int err;
	unsigned n_tried, n_skipped;
	const struct cmek_slot *recovery; /* one for a recovery code, which was not tried */
};

static bool may_pass(enum cmek_kind kind)
{
	return kind == CMEK_E_UNREACHABLE || kind == CMEK_E_THROTTLED || kind == CMEK_E_EXPIRED;
}

static void story_add(struct story *story, const struct cmek_slot *slot, const struct cmek_error *err)
{
	size_t used = strlen(story->text);

	snprintf(story->text + used, sizeof(story->text) - used, "%sslot %u (%s): %s", used ? "; " : "", slot->id,
		 slot->resolved, err->text);
	if (story->n_tried++ == 0 || (may_pass(err->kind) && !may_pass(story->kind))) {
		story->kind = err->kind;
		story->err = err->err;
	}
}

static bool is_wanted(const struct cmek_slot *slot, const struct cmek_unlock_params *params)
{
	return (params->slot < 0 || slot->id == (unsigned)params->slot) &&
	       (!params->key || cmek_slot_key_is(slot->resolved, params->key));
}

/* Nobody is asked for a recovery code who has not asked for its slot. */
static bool is_left_alone(const struct cmek_slot *slot, const struct cmek_unlock_params *params)
{
	return params->slot < 0 && !params->key && !strcmp(slot->provider, CMEK_KMS_RECOVERY_NAME);
}

/* No slot was even tried. */
static int nothing_tried(const struct cmek_volhdr *hdr, const struct cmek_unlock_params *params,
			 const struct story *story, struct cmek_error *err)
{
	if (story->n_skipped)
		return cmek_error_set(
			err, CMEK_E_MISMATCH, EKEYREJECTED,
			"no key slot is for a key that is pinned for this volume on this host (%s); slot %u is for %s",
			cmek_pins_text(params->pins), hdr->slots[0].id, hdr->slots[0].resolved);
	if (story->recovery)
		return cmek_error_set(err, CMEK_E_NOT_FOUND, ENXIO, "the volume has slots for recovery codes only: slot %u",
				      story->recovery->id);
	if (params->key)
		return cmek_error_set(err, CMEK_E_MISMATCH, EKEYREJECTED, "no key slot is for %s; slot %u is for %s",
				      params->key, hdr->slots[0].id, hdr->slots[0].resolved);
	return cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT, "the volume has no key slot %d", params->slot);
}

/* The KEK from the first of the copy's slots that serves. */
static int open_kek(const struct cmek_volhdr *hdr, const struct cmek_unlock_params *params,
		    struct cmek_secret **ret_kek, struct cmek_error *err)
{
	struct story story = { .kind = CMEK_E_NONE };
	const struct cmek_slot *slot;
	struct cmek_error failure;
	size_t i;
	int ret;

	for (i = 0; i < hdr->n_slots; i++) {
		slot = &hdr->slots[i];
		if (!is_wanted(slot, params))
			continue;
		if (is_left_alone(slot, params)) {
			story.recovery = slot;
			continue;
		}
		/* A key that the user names is a pin by itself. */
		if (!params->key && params->pins && !cmek_pins_match(params->pins, slot)) {
			cmek_report(&params->report,
				    "key slot %u is for %s, which is not pinned for this volume on this host: skipped",
				    slot->id, slot->resolved);
			story.n_skipped++;
			continue;
		}
		failure = (struct cmek_error)CMEK_ERROR_INIT;
		if (!params->unwrapper.unwrap(params->unwrapper.arg, hdr->uuid, slot, ret_kek, &failure)) {
			if (story.n_tried)
				cmek_report(&params->report, "key slot %u (%s) opened the volume; before it failed %s",
					    slot->id, slot->resolved, story.text);
			return 0;
		}
		story_add(&story, slot, &failure);
	}
	if (!story.n_tried)
		return nothing_tried(hdr, params, &story, err);
	ret = cmek_error_set(err, story.kind, story.err, "%s%s", story.n_tried > 1 ? "no key slot opens: " : "", story.text);
	if (story.recovery)
		cmek_error_prefix(err, "slot %u is for a recovery code and was not asked for; the others", story.recovery->id);
	return ret;
}

static int add_deks(const struct cmek_volhdr *hdr, struct cmek_keyring *ring, struct cmek_error *err)
{
	const struct cmek_dek_entry *dek;
	size_t i;
	int ret;

	for (i = 0; i < hdr->n_deks; i++) {
		dek = &hdr->deks[i];
		ret = cmek_keyring_add_dek(ring, dek->id, dek->domain, dek->state, dek->wrapped, err);
		if (ret)
			return ret;
	}
	return 0;
}

/* The copy's slots, then its HMAC, then its DEKs. */
int cmek_unlock_copy(const struct cmek_volhdr *hdr, const uint8_t *bytes, size_t len, const char *name,
		     const struct cmek_unlock_params *params, struct cmek_keyring **ret_ring, struct cmek_error *err)
{
	struct cmek_keyring *ring = NULL;
	struct cmek_secret *kek = NULL;
	int ret;

	ret = open_kek(hdr, params, &kek, err);
	if (ret)
		goto out;
	ret = cmek_keyring_new(hdr->uuid, &kek, &ring, err);
	if (ret)
		goto out;
	ret = cmek_volhdr_verify(bytes, len, cmek_keyring_header_mac(ring), err);
	if (ret)
		cmek_error_prefix(err, "%s", name);
	else
		ret = add_deks(hdr, ring, err);
	if (ret)
		goto out;
	*ret_ring = ring;
	ring = NULL;
out:
	cmek_keyring_free(ring);
	cmek_secret_free(kek);
	return ret;
}

/* The picked copy of the store. */
static int unlock_picked(const struct cmek_volhdr_store *store, const struct cmek_unlock_params *params,
			 struct cmek_keyring **ret_ring, struct cmek_error *err)
{
	size_t len = 0;
	const char *name = NULL;
	const uint8_t *bytes = cmek_volhdr_store_bytes(store, &len, &name);

	return cmek_unlock_copy(cmek_volhdr_store_header(store), bytes, len, name, params, ret_ring, err);
}

static void repair(struct cmek_volhdr_store *store, const struct cmek_unlock_params *params)
{
	enum cmek_store_access access = cmek_volhdr_store_access(store);
	struct cmek_error err = CMEK_ERROR_INIT;

	if (!cmek_volhdr_store_unequal(store) || (access != CMEK_STORE_WRITE && access != CMEK_STORE_CHANGE))
		return;
	if (cmek_volhdr_store_repair(store, &err))
		cmek_report(&params->report, "the copies of the volume header differ and could not be made equal: %s",
			    err.text);
	else
		cmek_report(&params->report,
			    "the copies of the volume header differed; the other one was written anew");
}

int cmek_unlock(struct cmek_volhdr_store *store, const struct cmek_unlock_params *params,
		struct cmek_keyring **ret_ring, struct cmek_error *err)
{
	const struct cmek_volhdr *hdr = cmek_volhdr_store_header(store);
	struct cmek_error first = CMEK_ERROR_INIT, second = CMEK_ERROR_INIT;
	char uuid[CMEK_UUID_TEXT];
	int ret;

	cmek_uuid_encode(hdr->uuid, uuid);
	if (!params->key && !params->pins)
		cmek_report(&params->report,
			    "volume %s is not pinned on this host: that %s is its key is known from the volume "
			    "itself alone",
			    uuid, hdr->slots[0].resolved);
	ret = unlock_picked(store, params, ret_ring, &first);
	/*
	 * The other copy is for damage and tampering only. A key that is disabled or out of reach must not send us to
	 * an older header that another key still opens.
	 */
	if (ret &&
	    (first.kind == CMEK_E_TAMPERED || first.kind == CMEK_E_BAD_FORMAT || first.kind == CMEK_E_MISMATCH) &&
	    cmek_volhdr_store_unequal(store) && !cmek_volhdr_store_yield(store)) {
		ret = unlock_picked(store, params, ret_ring, &second);
		if (!ret)
			cmek_report(&params->report,
				    "a copy of the volume header is not to be trusted: %s; the other one is used",
				    first.text);
	}
	if (!ret) {
		repair(store, params);
		return 0;
	}
	if (cmek_error_is_set(&second))
		return cmek_error_set(err, second.kind, second.err,
				      "volume %s: %s; and the other copy of the header: %s", uuid, first.text,
				      second.text);
	return cmek_error_set(err, first.kind, first.err, "volume %s: %s", uuid, first.text);
}
