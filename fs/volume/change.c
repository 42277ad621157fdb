/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The frame around every change of a header: lock, unlock, change a copy, pin, write, pin again. Knows neither what is
 * changed and why, nor how a header is written.
 */
#include "config.h"

#include "fs/volume/change.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fs/volume/registry.h"

struct cmek_change {
	const struct cmek_kms_options *kms;
	struct cmek_volhdr_store *store;
	struct cmek_registry *registry;
	char *store_path;
	struct cmek_keyring *ring;
	struct cmek_keyring *next_ring; /* of the new KEK, NULL when it stays */
	struct cmek_volhdr *hdr;        /* NULL once committed: the store has it then */
};

void cmek_change_end(struct cmek_change *change)
{
	if (!change)
		return;
	cmek_volhdr_free(change->hdr);
	cmek_keyring_free(change->next_ring);
	cmek_keyring_free(change->ring);
	cmek_registry_free(change->registry);
	cmek_volhdr_store_close(change->store);
	free(change->store_path);
	free(change);
}

static int unlock(struct cmek_change *change, const struct cmek_change_params *params, struct cmek_error *err)
{
	struct cmek_unlock_params unlock_params = {
		.unwrapper = cmek_unwrapper_kms(params->kms),
		.key = params->key,
		.slot = params->slot,
		.report = params->report,
	};
	struct cmek_pins *pins = NULL;
	int ret;

	/* Else a header that was put here in the place of its own would become the one that belongs here. */
	ret = params->key ? 0 : cmek_registry_check_place(change->registry, cmek_volhdr_store_header(change->store)->uuid,
							  change->store_path, err);
	if (!ret)
		ret = cmek_registry_pins(change->registry, cmek_volhdr_store_header(change->store)->uuid, &pins, err);
	unlock_params.pins = pins;
	if (!ret)
		ret = cmek_unlock(change->store, &unlock_params, &change->ring, err);
	cmek_pins_free(pins);
	return ret;
}

int cmek_change_begin(int store_fd, const char *store_path, const struct cmek_change_params *params,
		      struct cmek_change **ret_change, struct cmek_error *err)
{
	struct cmek_change *change = calloc(1, sizeof(*change));
	int ret;

	if (!change)
		return cmek_error_sys(err, ENOMEM, "volume header");
	change->kms = params->kms;
	change->store_path = strdup(store_path);
	ret = change->store_path ? 0 : cmek_error_sys(err, ENOMEM, "volume header");
	if (!ret)
		ret = cmek_registry_new(NULL, &change->registry, err);
	if (!ret)
		ret = cmek_volhdr_store_open(store_fd, params->access, &params->report, &change->store, err);
	if (!ret)
		ret = unlock(change, params, err);
	if (!ret)
		ret = cmek_volhdr_store_copy(change->store, &change->hdr, err);
	if (ret) {
		cmek_change_end(change);
		return ret;
	}
	*ret_change = change;
	return 0;
}

const struct cmek_volhdr *cmek_change_old(const struct cmek_change *change)
{
	return cmek_volhdr_store_header(change->store);
}

struct cmek_volhdr *cmek_change_new(struct cmek_change *change)
{
	/* Committed: the store's own, which nobody writes to any more. */
	return change->hdr ? change->hdr : (struct cmek_volhdr *)cmek_volhdr_store_header(change->store);
}

struct cmek_keyring *cmek_change_ring(struct cmek_change *change)
{
	return change->ring;
}

const struct cmek_secret *cmek_change_kek(const struct cmek_change *change)
{
	return cmek_keyring_kek(change->next_ring ? change->next_ring : change->ring);
}

bool cmek_change_kek_is_new(const struct cmek_change *change)
{
	return change->next_ring != NULL;
}

int cmek_change_rekey(struct cmek_change *change, struct cmek_error *err)
{
	struct cmek_volhdr *hdr = change->hdr;
	struct cmek_keyring *ring = NULL;
	struct cmek_secret *kek = NULL;
	struct cmek_dek_entry *dek;
	size_t i;
	int ret;

	ret = cmek_secret_new_random(CMEK_KEY_KEK, 32, &kek, err);
	if (!ret)
		ret = cmek_keyring_new(hdr->uuid, &kek, &ring, err);
	for (i = 0; !ret && i < hdr->n_slots; i++) {
		ret = cmek_keyslot_refill(hdr->uuid, &hdr->slots[i], change->kms, cmek_keyring_kek(ring), err);
		if (ret)
			cmek_error_prefix(err, "slot %u (%s) can't get the new key", hdr->slots[i].id,
					  hdr->slots[i].resolved);
	}
	for (i = 0; !ret && i < hdr->n_deks; i++) {
		dek = &hdr->deks[i];
		if (dek->state != CMEK_DEK_DESTROYED)
			ret = cmek_keyring_rewrap_dek(change->ring, ring, dek->id, dek->domain, dek->wrapped,
						      dek->wrapped, err);
	}
	if (!ret) {
		cmek_keyring_free(change->next_ring);
		change->next_ring = ring;
		ring = NULL;
	}
	cmek_keyring_free(ring);
	cmek_secret_free(kek);
	return ret;
}

int cmek_change_rotate(struct cmek_change *change, uint16_t *ret_dek, struct cmek_error *err)
{
	struct cmek_volhdr *hdr = change->hdr;
	struct cmek_dek_entry *dek;
	size_t i;
	int ret;

	if (hdr->dek_next > UINT16_MAX)
		return cmek_error_set(err, CMEK_E_LIMIT, ENOSPC, "the volume has used up the numbers of data keys");
	ret = cmek_change_rekey(change, err);
	if (ret)
		return ret;
	dek = cmek_volhdr_grow_deks(hdr);
	if (!dek)
		return cmek_error_sys(err, ENOMEM, "volume header");
	for (i = 0; i < hdr->n_deks; i++)
		if (hdr->deks[i].state == CMEK_DEK_ACTIVE)
			hdr->deks[i].state = CMEK_DEK_DECRYPT_ONLY;
	dek->id = (uint16_t)hdr->dek_next;
	dek->state = CMEK_DEK_ACTIVE;
	dek->created = (int64_t)time(NULL);
	ret = cmek_keyring_make_dek(change->next_ring, dek->id, dek->domain, dek->state, dek->wrapped, err);
	if (ret)
		return ret;
	hdr->dek_next++;
	hdr->dek_active = dek->id;
	*ret_dek = dek->id;
	return 0;
}

int cmek_change_commit(struct cmek_change *change, struct cmek_error *err)
{
	const struct cmek_keyring *ring = change->next_ring ? change->next_ring : change->ring;
	int ret, written;

	if (!change->hdr->n_slots)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL, "a volume without a key slot could not be opened again");
	ret = cmek_registry_repin(change->registry, cmek_change_old(change), change->hdr, change->store_path, err);
	if (ret)
		return ret;
	written = cmek_volhdr_store_update(change->store, &change->hdr, cmek_keyring_header_mac(ring), err);
	/* Pins of what is the header now, whichever that is. The first failure is the one to tell. */
	ret = cmek_registry_repin(change->registry, NULL, cmek_change_old(change), change->store_path,
				  written ? NULL : err);
	return written ? written : ret;
}
