/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_VOLUME_SHRED_H
#define CMEK_VOLUME_SHRED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "fs/volume/volhdr_store.h"

/*
 * Takes the keys of a volume out of its store: what holds them, wrapped, is overwritten where it lies, flushed, and
 * replaced or removed. A file system that writes elsewhere (btrfs, snapshots, flash below all of them) may keep the old
 * bytes; whoever calls says so, and has the KMS destroy what wrapped them. One thread.
 */
struct cmek_shred_count {
	unsigned files;
	uint64_t bytes;
};

/* What cmek_shred_volume() would overwrite. store_fd: the store's directory. */
int cmek_shred_measure(int store_fd, struct cmek_shred_count *ret_count, struct cmek_error *err);

/*
 * Both header copies, every journal, and the journals that were put aside. store: CMEK_STORE_CHANGE, of the same store;
 * not to be used but to close it afterwards. The first header copy goes first: from then on the volume is a shredded one
 * (a tombstone, doc/format.md section 2.1); what a crash interrupts, the next call ends. *ret_count is what was
 * overwritten, on failure as well.
 */
int cmek_shred_volume(int store_fd, const struct cmek_volhdr_store *store, const uint8_t volume[16], int64_t when,
		      struct cmek_shred_count *ret_count, struct cmek_error *err);

/*
 * The two copies as they lie now, to be overwritten once others have taken their names (cmek_volhdr_store_put() writes
 * new files). Open before the update, finish after; finish closes, too. finish with overwrite false only closes.
 */
struct cmek_shred_old {
	int fds[2];
};
int cmek_shred_old_open(int store_fd, struct cmek_shred_old *ret_old, struct cmek_error *err);
int cmek_shred_old_finish(struct cmek_shred_old *old, bool overwrite, struct cmek_error *err);

/* Nothing is left of it: both copies are tombstones, and there is no journal. Kind exists, -EUCLEAN, says what is. */
int cmek_shred_verify(int store_fd, struct cmek_error *err);

#endif
