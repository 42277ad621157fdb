/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_VOLUME_REGISTRY_H
#define CMEK_VOLUME_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "fs/volume/slot.h"
#include "fs/volume/volhdr.h"

/*
 * The host's registry of volumes: which keys belong to a volume ("pins"). Before the unlock nothing in a header can be
 * trusted: who can write to the store could put in a slot of their own key, and read what is written from then on.
 * The registry lies outside the store. No secrets in it, and no endpoint ever comes from it or from a header.
 *
 * One JSON file: $CMEKFS_VOLUMES, else /var/lib/cmekfs/volumes.json for root and
 * ${XDG_DATA_HOME:-~/.local/share}/cmekfs/volumes.json for others; locked while it is changed, and replaced as a whole.
 * Any number of processes.
 */
struct cmek_registry;

/* path NULL: as above. Nothing is opened yet; a file that is not there is an empty registry. */
int cmek_registry_new(const char *path, struct cmek_registry **ret_reg, struct cmek_error *err);
void cmek_registry_free(struct cmek_registry *reg); /* NULL allowed */
const char *cmek_registry_path(const struct cmek_registry *reg);

/* Pins all slots of the header, in place of what was pinned for this volume. store_path: where it is, for people. */
int cmek_registry_pin(struct cmek_registry *reg, const struct cmek_volhdr *hdr, const char *store_path,
		      struct cmek_error *err);
/* Notes that the volume was unlocked now; does nothing for one that has no pins. */
int cmek_registry_touch(struct cmek_registry *reg, const uint8_t volume[16], struct cmek_error *err);
/* Forgets the volume; fine if it isn't there. */
int cmek_registry_forget(struct cmek_registry *reg, const uint8_t volume[16], struct cmek_error *err);

/* The pins of one volume, read once. *ret_pins is NULL when the volume has none. */
struct cmek_pins;
int cmek_registry_pins(struct cmek_registry *reg, const uint8_t volume[16], struct cmek_pins **ret_pins,
		       struct cmek_error *err);
void cmek_pins_free(struct cmek_pins *pins); /* NULL allowed */
/* True when provider, resolved key and principal of the slot are those of a pin. */
bool cmek_pins_match(const struct cmek_pins *pins, const struct cmek_slot *slot);
/* The pinned keys in full, ", " between them; borrowed. */
const char *cmek_pins_text(const struct cmek_pins *pins);

#endif
