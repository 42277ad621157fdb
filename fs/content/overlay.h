/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_CONTENT_OVERLAY_H
#define CMEK_CONTENT_OVERLAY_H

#include <sys/stat.h>

#include "fs/content/replay_state.h"

/*
 * The last state that a journal has of some files, in front of a store that nobody writes: what a read-only mount shows
 * where a replay would have to write. Images stay in the journal and are read from there. Thread-safe.
 */
struct cmek_overlay;

/* Takes over the journal's descriptor and the states (zeroing them), whose dev and ino are set where a file was found. */
int cmek_overlay_new(int *journal_fd, struct cmek_last_states *states, struct cmek_overlay **ret_overlay);
/* NULL allowed. */
void cmek_overlay_free(struct cmek_overlay *overlay);

/* The last state of a store file, valid as long as the overlay, or NULL: the store has it. overlay may be NULL. */
const struct cmek_last_state *cmek_overlay_find(const struct cmek_overlay *overlay, dev_t dev, ino_t ino);
/* Stored bytes of a place that has an image, at most len of them: how many, or -errno. */
ssize_t cmek_overlay_read(const struct cmek_overlay *overlay, const struct cmek_last_image *image, void *buf, size_t len);

#endif
