/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_VOLUME_REGISTRY_H
#define CMEK_VOLUME_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "fs/volume/pins.h"
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
/*
 * Around a change of the slots, for a volume that has pins (else nothing is done): first the keys of both headers are
 * pinned, then, with `old` NULL, those of the new one alone.
 */
int cmek_registry_repin(struct cmek_registry *reg, const struct cmek_volhdr *old, const struct cmek_volhdr *hdr,
			const char *store_path, struct cmek_error *err);
/*
 * Notes a copy of the header that was put somewhere, at `path`, with the slots of hdr: whoever has it and one of its
 * keys can open the volume. A note of the same path is replaced. Does nothing for a volume that has no pins.
 */
int cmek_registry_note_backup(struct cmek_registry *reg, const struct cmek_volhdr *hdr, const char *path,
			      struct cmek_error *err);
/* Notes that the volume was unlocked now; does nothing for one that has no pins. */
int cmek_registry_touch(struct cmek_registry *reg, const uint8_t volume[16], struct cmek_error *err);
/* Forgets the volume; fine if it isn't there. */
int cmek_registry_forget(struct cmek_registry *reg, const uint8_t volume[16], struct cmek_error *err);

/* A header backup that was noted. */
struct cmek_backup_slot {
	unsigned id;
	char *resolved;
	char *version; /* may be empty */
};
struct cmek_backup {
	char *path;
	uint64_t sequence; /* of the header in it */
	int64_t made;
	struct cmek_backup_slot *slots;
	size_t n_slots;
};
/* What the registry says of one volume; a text is NULL where it says nothing. */
struct cmek_registered {
	uint8_t volume[16];
	char *label;
	char *store;
	struct cmek_pins *pins; /* of this volume */
	struct cmek_backup *backups;
	size_t n_backups;
};
/* All volumes, in the order of their UUIDs; the caller frees them. */
int cmek_registry_list(struct cmek_registry *reg, struct cmek_registered **ret_volumes, size_t *ret_n,
		       struct cmek_error *err);
void cmek_registry_list_free(struct cmek_registered *volumes, size_t n); /* NULL allowed */
/* The one with this UUID, or NULL; borrowed. */
const struct cmek_registered *cmek_registered_find(const struct cmek_registered *volumes, size_t n,
						   const uint8_t volume[16]);

/* The pins of one volume, read once; the caller frees them. *ret_pins is NULL when the volume has none. */
int cmek_registry_pins(struct cmek_registry *reg, const uint8_t volume[16], struct cmek_pins **ret_pins,
		       struct cmek_error *err);

/*
 * Whether this volume's header belongs in this store: mismatch (-EKEYREJECTED) when the registry has only other volumes
 * there, so that somebody has put another volume's header in the place of theirs. path: as mkfs saw it, symlinks resolved.
 */
int cmek_registry_check_place(struct cmek_registry *reg, const uint8_t volume[16], const char *path,
			      struct cmek_error *err);

#endif
