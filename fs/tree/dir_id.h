/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TREE_DIR_ID_H
#define CMEK_TREE_DIR_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/volume/keyring.h"

/*
 * The id of a directory and the DEKs of its names: the text of the symlink .cmekfs.dir (doc/format.md section 4.1).
 * Thread-safe.
 */
#define CMEK_DIR_ID_NAME ".cmekfs.dir"
#define CMEK_DIR_ID_TEXT 36 /* with the NUL */

struct cmek_dir_id {
	uint8_t id[CMEK_DIR_ID_LEN];
	uint16_t dek;
	uint16_t old_dek; /* 0 unless names are moving from it to dek */
};

void cmek_dir_id_format(const struct cmek_dir_id *id, char ret_text[CMEK_DIR_ID_TEXT]);
/* -EBADMSG: no such text. */
int cmek_dir_id_parse(const char *text, size_t len, struct cmek_dir_id *ret_id);

/* Of the directory dirfd (O_PATH is enough). -ENOENT: has none; -EBADMSG: what is there is no id. */
int cmek_dir_id_read(int dirfd, struct cmek_dir_id *ret_id);
/*
 * Gives the directory a new random id, with its names under `dek`. If another thread or process was faster, its id is
 * the one that counts: it is returned, and *ret_made is false.
 */
int cmek_dir_id_make(int dirfd, uint16_t dek, struct cmek_dir_id *ret_id, bool *ret_made);
/* Takes the id away (0 also when there was none) / puts it back. The caller holds the directory's lock. */
int cmek_dir_id_remove(int dirfd);
int cmek_dir_id_restore(int dirfd, const struct cmek_dir_id *id);

#endif
