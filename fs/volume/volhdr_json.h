/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_VOLUME_VOLHDR_JSON_H
#define CMEK_VOLUME_VOLHDR_JSON_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "fs/volume/volhdr.h"

/* The JSON text of a header's area; only volhdr.c calls these. */

/* Fills hdr, whose uuid is set from the head, from the text. On failure hdr is half filled, for cmek_volhdr_free(). */
int cmek_volhdr_area_decode(const uint8_t *text, size_t len, struct cmek_volhdr *hdr, struct cmek_error *err);
/* A malloced text. What could not be decoded again is refused here (kind usage). */
int cmek_volhdr_area_encode(const struct cmek_volhdr *hdr, char **ret_text, struct cmek_error *err);

#endif
