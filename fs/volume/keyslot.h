/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_VOLUME_KEYSLOT_H
#define CMEK_VOLUME_KEYSLOT_H

#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"
#include "fs/volume/slot.h"
#include "kms/kms.h"

/*
 * Joins key slots and the KMS. Blocks as kms.h says. Kinds and errno as cmek_kms_wrap() and cmek_kms_unwrap().
 */

/*
 * A new slot: wraps kek by the key that is open in kms, then unwraps it again and compares, so that a key that can't
 * open the volume never becomes a slot. principal may be NULL.
 */
int cmek_keyslot_wrap(struct cmek_kms *kms, const uint8_t volume[16], unsigned id, const char *purpose,
		      const struct cmek_kms_principal *principal, const struct cmek_secret *kek,
		      struct cmek_slot *ret_slot, struct cmek_error *err);

/*
 * The KEK in a slot, asked of the slot's own key (its resolved form) as the slot's principal. ret_fresh: as in
 * cmek_kms_unwrap(), NULL allowed.
 */
int cmek_keyslot_unwrap(const uint8_t volume[16], const struct cmek_slot *slot, const struct cmek_kms_options *opts,
			struct cmek_secret **ret_kek, struct cmek_kms_blob *ret_fresh, struct cmek_error *err);
/*
 * A copy of the slot with that fresh blob (emptied) in the place of its own, once the blob was proven to unwrap to the same
 * kek. Members of the slot that we don't know are left out.
 */
int cmek_keyslot_renew(const uint8_t volume[16], const struct cmek_slot *slot, const struct cmek_kms_options *opts,
		       const struct cmek_secret *kek, struct cmek_kms_blob *fresh, struct cmek_slot *ret_renewed,
		       struct cmek_error *err);
/* Moves the blob of renewed (emptied) into slot. Kind mismatch: it was made for another slot, or by another key. */
int cmek_keyslot_take(struct cmek_slot *slot, struct cmek_slot *renewed, struct cmek_error *err);

/*
 * Wraps the KEK of a slot under the newest version of the slot's own key, in the KMS where it can, and proves it as
 * cmek_keyslot_wrap() does. The slot keeps its place, purpose and principal; on failure it is as it was.
 */
int cmek_keyslot_rewrap(const uint8_t volume[16], struct cmek_slot *slot, const struct cmek_kms_options *opts,
			const struct cmek_secret *kek, struct cmek_error *err);
/*
 * Wraps another KEK into a slot, under the same key: for a volume that gets a new KEK. Otherwise as above.
 */
int cmek_keyslot_refill(const uint8_t volume[16], struct cmek_slot *slot, const struct cmek_kms_options *opts,
			const struct cmek_secret *kek, struct cmek_error *err);
/* Whether the slot holds this KEK: 0, or why not (tampered: another one). */
int cmek_keyslot_prove(const uint8_t volume[16], const struct cmek_slot *slot, const struct cmek_kms_options *opts,
		       const struct cmek_secret *kek, struct cmek_error *err);

/*
 * Who unwraps: tools do it in their own process (cmek_unwrapper_kms()), the mount's storage daemon, which has no
 * network and no credentials, hands the slot to the KMS agent. *ret_kek: CMEK_KEY_KEK, 32 bytes, the caller's.
 */
struct cmek_unwrapper {
	void *arg;
	int (*unwrap)(void *arg, const uint8_t volume[16], const struct cmek_slot *slot, struct cmek_secret **ret_kek,
		      struct cmek_error *err);
};
/* cmek_keyslot_unwrap() with these options, which must outlive it. */
struct cmek_unwrapper cmek_unwrapper_kms(const struct cmek_kms_options *opts);

#endif
