/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_VOLUME_CHANGE_H
#define CMEK_VOLUME_CHANGE_H

#include <stdbool.h>

#include "base/err.h"
#include "fs/volume/keyring.h"
#include "fs/volume/keyslot.h"
#include "fs/volume/unlock.h"
#include "fs/volume/volhdr.h"
#include "fs/volume/volhdr_store.h"

/*
 * A change of a volume's header by a tool: the lock, the unlock, the new header, and the pins that go with it. A crash
 * at any point leaves the old header or the new one, and pins that let it be opened. One thread.
 */
struct cmek_change_params {
	enum cmek_store_access access;       /* CMEK_STORE_CHANGE; _WRITE keeps mounts out as well */
	const struct cmek_kms_options *kms;  /* borrowed until the end */
	const char *key;                     /* as in struct cmek_unlock_params */
	int slot;
	struct cmek_report report;
};

struct cmek_change;

/*
 * Locks and unlocks the volume. store_fd is borrowed for the call; store_path: for the registry, copied. Kinds as
 * cmek_volhdr_store_open() and cmek_unlock(). The lock lasts until the end, over whatever is asked of a KMS meanwhile.
 */
int cmek_change_begin(int store_fd, const char *store_path, const struct cmek_change_params *params,
		      struct cmek_change **ret_change, struct cmek_error *err);
/* Gives the lock back; what was not committed is forgotten. NULL allowed. */
void cmek_change_end(struct cmek_change *change);

/* The header as it is; borrowed until the commit. */
const struct cmek_volhdr *cmek_change_old(const struct cmek_change *change);
/* The header as it shall be: to be changed by the caller, until the commit. After it: the header as it is. */
struct cmek_volhdr *cmek_change_new(struct cmek_change *change);
/* The keys that were unlocked; after cmek_change_rekey() still those of the old KEK. */
struct cmek_keyring *cmek_change_ring(struct cmek_change *change);
/* The KEK that slots shall hold: the new one after cmek_change_rekey(). */
const struct cmek_secret *cmek_change_kek(const struct cmek_change *change);

/* True after cmek_change_rekey(). */
bool cmek_change_kek_is_new(const struct cmek_change *change);

/*
 * Gives the new header a new KEK, which all of its slots then hold: every slot's key must wrap and unwrap now. Kinds
 * as cmek_keyslot_wrap(), naming the slot. Remove slots before, add them after.
 */
int cmek_change_rekey(struct cmek_change *change, struct cmek_error *err);

/*
 * A new KEK, as above, and a new data key, which is the active one from then on; the one that was active is decrypt-only.
 * A mount that has the volume goes on with its own keys until it is told (cmek_keyring_adopt()). *ret_dek: its id. Kind
 * limit: all 65535 ids were used.
 */
int cmek_change_rotate(struct cmek_change *change, uint16_t *ret_dek, struct cmek_error *err);

/*
 * Writes the new header as both copies, and the pins when the volume has any: those of both headers before, those of
 * the new one after. A header without slots is refused (usage).
 */
int cmek_change_commit(struct cmek_change *change, struct cmek_error *err);

#endif
