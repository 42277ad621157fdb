/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_VOLUME_UNLOCK_H
#define CMEK_VOLUME_UNLOCK_H

#include <stdint.h>

#include "base/err.h"
#include "fs/volume/keyring.h"
#include "fs/volume/keyslot.h"
#include "fs/volume/registry.h"
#include "fs/volume/volhdr_store.h"

/*
 * Volume header + somebody who unwraps -> keyring. Used by the mount and all tools. May block as the unwrapper does.
 */
struct cmek_unlock_params {
	struct cmek_unwrapper unwrapper;
	/*
	 * Which slots may be tried. key: only those of this key (its full form, with or without the provider's scheme);
	 * it is a pin by itself. slot: only this one, -1 = any. Slots for recovery codes are tried only when either is
	 * given. pins: only those that match, NULL = the volume is not
	 * pinned here.
	 */
	const char *key;
	int slot;
	const struct cmek_pins *pins;
	struct cmek_report report; /* slots that failed before one served, a copy that yielded, a volume without pins */
};

/*
 * Tries the slots of the picked header copy in their order until one serves, then checks the header's HMAC; a copy that
 * fails it yields to the other one. Then opens all DEKs. Copies that are unequal are made equal when the store was
 * opened with CMEK_STORE_WRITE (a repair that fails is reported, no error). cmek_volhdr_store_header() is then the
 * header that was verified.
 * Kinds: those of the unwrapper (when all slots fail, the text has every slot's story, the kind is the first one's, or
 * one that may pass by itself, if any: unreachable, throttled, expired); mismatch (-EKEYREJECTED): no slot is allowed
 * by key or pins; not-found: no such slot; tampered (-EBADMSG): neither copy authenticates, or a DEK does not.
 */
int cmek_unlock(struct cmek_volhdr_store *store, const struct cmek_unlock_params *params,
		struct cmek_keyring **ret_ring, struct cmek_error *err);

/* The same for one copy alone that lies elsewhere: hdr is what was decoded from bytes, name says where, for messages. */
int cmek_unlock_copy(const struct cmek_volhdr *hdr, const uint8_t *bytes, size_t len, const char *name,
		     const struct cmek_unlock_params *params, struct cmek_keyring **ret_ring, struct cmek_error *err);

#endif
