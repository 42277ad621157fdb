/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_VOLUME_MKVOL_H
#define CMEK_VOLUME_MKVOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "fs/volume/keyring.h"
#include "fs/volume/volhdr.h"
#include "fs/volume/volhdr_store.h"

/*
 * Makes a volume in a store directory, in three steps: _open() looks and changes nothing, _prepare() makes the
 * directory and finds out what the store can do, _commit() makes the volume. One thread; the caller sets umask 077.
 *
 * Everything is built in STORE/.cmekfs.tmp-XXXXXXXX, flushed, and renamed to .cmekfs: before that there is no volume,
 * after it a whole one. What an interrupted run leaves is that directory with nothing in it but what this module makes,
 * and perhaps STORE/.cmekfs.dir beside it; the next run recognises and removes both.
 */
struct cmek_mkvol;

/*
 * Kinds: exists (-EEXIST: a volume, told with UUID and label; -ENOTEMPTY: other entries; lost+found alone is fine),
 * usage (-EINVAL: the directory lies in another volume's store, where it would be a foreign entry),
 * not-found (the directory above is missing), usage (not a directory), busy (another run on this store), system.
 *
 * A .cmekfs.dir without anything else is what a volume without files looks like when its .cmekfs was lost. It is
 * refused (exists, -EUCLEAN), as the header may come back from a backup, unless `force`: there is no more that force
 * does.
 */
int cmek_mkvol_open(const char *store_path, bool force, const struct cmek_report *report,
		    struct cmek_mkvol **ret_mk, struct cmek_error *err);
/* Removes what was made unless committed. NULL allowed. */
void cmek_mkvol_close(struct cmek_mkvol *mk);

/*
 * Makes STORE, if missing, with mode 0700; removes left-overs; asks the store for what a volume needs: symbolic links
 * of 1023 bytes or more, names of 255 bytes, upper and lower case told apart (else kind unsupported).
 * *ret_symlink_max: for the header.
 */
int cmek_mkvol_prepare(struct cmek_mkvol *mk, uint32_t *ret_symlink_max, struct cmek_error *err);
/* Durable on return. dek: the DEK of the root directory's names. */
int cmek_mkvol_commit(struct cmek_mkvol *mk, const struct cmek_volhdr *hdr, const struct cmek_secret *mac_key,
		      uint16_t dek, struct cmek_error *err);

/*
 * The directory that becomes .cmekfs, borrowed; between _prepare() and _commit() a journal.0 may be made in it, as the
 * content layer does.
 */
int cmek_mkvol_dir(const struct cmek_mkvol *mk);
/* True once the volume is there, even if _commit() then failed to flush it. */
bool cmek_mkvol_committed(const struct cmek_mkvol *mk);
/* The store's path, absolute; borrowed. After _prepare(). */
const char *cmek_mkvol_path(const struct cmek_mkvol *mk);

#endif
