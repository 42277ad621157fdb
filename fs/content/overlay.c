/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Finds the last state of a store file, and reads images where the journal has them. Knows neither records nor how
 * states came about.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "fs/content/overlay.h"

struct cmek_overlay {
	int journal_fd;
	struct cmek_last_states states;
	const struct cmek_last_state **slots; /* by file, open addressing; some are free */
	size_t n_slots;
};

static size_t slot_of(const struct cmek_overlay *overlay, dev_t dev, ino_t ino)
{
	size_t i = (size_t)(((uint64_t)ino + (uint64_t)dev * 31) * UINT64_C(0x9e3779b97f4a7c15) >> 20) &
		   (overlay->n_slots - 1);

	while (overlay->slots[i] != NULL && (overlay->slots[i]->ino != ino || overlay->slots[i]->dev != dev))
		i = (i + 1) & (overlay->n_slots - 1);
	return i;
}

int cmek_overlay_new(int *journal_fd, struct cmek_last_states *states, struct cmek_overlay **ret_overlay)
{
	struct cmek_overlay *overlay = calloc(1, sizeof(*overlay));
	const struct cmek_last_state *state;

	if (overlay == NULL)
		return -ENOMEM;
	overlay->n_slots = 16;
	while (overlay->n_slots < 2 * states->n)
		overlay->n_slots *= 2;
	overlay->slots = calloc(overlay->n_slots, sizeof(const struct cmek_last_state *));
	if (overlay->slots == NULL) {
		free(overlay);
		return -ENOMEM;
	}
	for (state = states->first; state != NULL; state = state->next)
		if (state->ino != 0)
			overlay->slots[slot_of(overlay, state->dev, state->ino)] = state;
	overlay->states = *states;
	memset(states, 0, sizeof(*states));
	overlay->journal_fd = *journal_fd;
	*journal_fd = -1;
	*ret_overlay = overlay;
	return 0;
}

void cmek_overlay_free(struct cmek_overlay *overlay)
{
	if (overlay == NULL)
		return;
	(void)close(overlay->journal_fd); /* only read */
	cmek_last_states_done(&overlay->states);
	free(overlay->slots);
	free(overlay);
}

const struct cmek_last_state *cmek_overlay_find(const struct cmek_overlay *overlay, dev_t dev, ino_t ino)
{
	return overlay != NULL ? overlay->slots[slot_of(overlay, dev, ino)] : NULL;
}

ssize_t cmek_overlay_read(const struct cmek_overlay *overlay, const struct cmek_last_image *image, void *buf, size_t len)
{
	return cmek_pread_full(overlay->journal_fd, buf, len < image->len ? len : image->len, image->journal_off);
}
