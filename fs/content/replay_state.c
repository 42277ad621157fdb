/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Reduces the records of a journal, one after the other, to the last state of each file. Knows what a record means; knows
 * neither journals nor the store.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "fs/content/block_map.h"
#include "fs/content/replay_state.h"

enum { STATE_BUCKETS = 4096, IMAGES_FIRST = 16 };

static uint64_t mix(uint64_t x)
{
	x *= UINT64_C(0x9e3779b97f4a7c15);
	return x ^ x >> 32;
}

int cmek_last_states_init(struct cmek_last_states *states, uint32_t block_size)
{
	memset(states, 0, sizeof(*states));
	states->block_size = block_size;
	states->end = &states->first;
	states->buckets = calloc(STATE_BUCKETS, sizeof(struct cmek_last_state *));
	return states->buckets != NULL ? 0 : -ENOMEM;
}

void cmek_last_states_done(struct cmek_last_states *states)
{
	struct cmek_last_state *state, *next;

	for (state = states->first; state != NULL; state = next) {
		next = state->next;
		free(state->path);
		free(state->ids);
		free(state->images);
		free(state);
	}
	free(states->buckets);
	memset(states, 0, sizeof(*states));
}

/* ---- images ---- */

/* The slot of a place, or the free one where it would be. There is always a free one. */
static struct cmek_last_image *slot_of(struct cmek_last_image *images, size_t n_slots, uint64_t place)
{
	size_t i = mix(place + 1) & (n_slots - 1);

	while (images[i].journal_off != 0 && images[i].place != place)
		i = (i + 1) & (n_slots - 1);
	return images + i;
}

const struct cmek_last_image *cmek_last_image_find(const struct cmek_last_state *state, uint64_t place)
{
	const struct cmek_last_image *image;

	if (state->n_slots == 0)
		return NULL;
	image = slot_of(state->images, state->n_slots, place);
	return image->journal_off != 0 && image->len > 0 ? image : NULL;
}

/* More slots, without those of images that are outdated. */
static int grow_images(struct cmek_last_state *state)
{
	struct cmek_last_image *grown;
	size_t i, n_live = 0, n_slots = IMAGES_FIRST;

	for (i = 0; i < state->n_slots; i++)
		n_live += state->images[i].len > 0;
	while (n_slots < 4 * n_live)
		n_slots *= 2;
	grown = calloc(n_slots, sizeof(*grown));
	if (grown == NULL)
		return -ENOMEM;
	for (i = 0; i < state->n_slots; i++)
		if (state->images[i].len > 0)
			*slot_of(grown, n_slots, state->images[i].place) = state->images[i];
	free(state->images);
	state->images = grown;
	state->n_slots = n_slots;
	state->n_used = n_live;
	return 0;
}

static int set_image(struct cmek_last_state *state, uint64_t place, uint64_t journal_off, uint32_t len)
{
	struct cmek_last_image *slot;

	if (2 * (state->n_used + 1) > state->n_slots && grow_images(state) < 0)
		return -ENOMEM;
	slot = slot_of(state->images, state->n_slots, place);
	state->n_used += slot->journal_off == 0;
	*slot = (struct cmek_last_image){ place, journal_off, len };
	return 0;
}

/* Images of pages, or of blocks, from `first` to before `end` do not count any more. */
static void outdate(struct cmek_last_state *state, uint64_t first, uint64_t end, bool pages)
{
	size_t i;

	if (state->n_slots > 0 && end > first && end - first < state->n_slots) {
		for (; first < end; first++)
			slot_of(state->images, state->n_slots, first << 1 | pages)->len = 0;
		return;
	}
	for (i = 0; i < state->n_slots; i++)
		if ((state->images[i].place & 1) == pages && state->images[i].place >> 1 >= first &&
		    state->images[i].place >> 1 < end)
			state->images[i].len = 0;
}

static void outdate_behind(struct cmek_last_state *state, uint32_t block_size, uint64_t size)
{
	outdate(state, cmek_group_count(block_size, size), UINT64_MAX, true);
	outdate(state, size / block_size + (size % block_size != 0), UINT64_MAX, false);
}

/* ---- files ---- */

bool cmek_last_state_has_id(const struct cmek_last_state *state, const uint8_t id[CMEK_FILE_ID_LEN])
{
	size_t i;

	for (i = 0; i < state->n_ids; i++)
		if (memcmp(state->ids[i], id, CMEK_FILE_ID_LEN) == 0)
			return true;
	return false;
}

static bool is_newest_id(const struct cmek_last_state *state, const uint8_t id[CMEK_FILE_ID_LEN])
{
	return state->n_ids > 0 && memcmp(state->ids[state->n_ids - 1], id, CMEK_FILE_ID_LEN) == 0;
}

static int add_id(struct cmek_last_state *state, const uint8_t id[CMEK_FILE_ID_LEN])
{
	uint8_t(*grown)[CMEK_FILE_ID_LEN];

	if (is_newest_id(state, id) || cmek_is_zero(id, CMEK_FILE_ID_LEN))
		return 0;
	grown = reallocarray(state->ids, state->n_ids + 1, sizeof(*grown));
	if (grown == NULL)
		return -ENOMEM;
	state->ids = grown;
	memcpy(grown[state->n_ids++], id, CMEK_FILE_ID_LEN);
	return 0;
}

static struct cmek_last_state **bucket_of(struct cmek_last_states *states, const struct cmek_file_handle *handle)
{
	uint64_t h = handle->type;
	uint32_t i;

	for (i = 0; i < handle->len; i++)
		h = mix(h + handle->bytes[i]);
	return states->buckets + h % STATE_BUCKETS;
}

/*
 * Whether a record is about this file. Handles tell files apart even in a copy of the store, where they can't be opened.
 * Without them ids do; that of new content is not known yet, but the file was emptied at the same path just before.
 */
static bool is_about(const struct cmek_last_state *state, const struct cmek_section *section)
{
	const struct cmek_file_handle *a = &state->handle, *b = &section->handle;

	if (b->len > 0)
		return a->type == b->type && a->len == b->len && memcmp(a->bytes, b->bytes, b->len) == 0;
	if (a->len > 0)
		return false;
	if (section->plain_size > 0 && is_newest_id(state, section->file_id))
		return true;
	return strcmp(state->path, section->path) == 0 &&
	       (state->plain_size == 0 || section->plain_size == 0 || state->n_ids == 0 ||
		is_newest_id(state, section->file_id));
}

static struct cmek_last_state *find_or_add(struct cmek_last_states *states, const struct cmek_section *section)
{
	struct cmek_last_state **bucket = bucket_of(states, &section->handle), *state;

	for (state = *bucket; state != NULL; state = state->hash_next)
		if (is_about(state, section))
			return state;
	state = calloc(1, sizeof(*state));
	if (state == NULL)
		return NULL;
	state->handle = section->handle;
	state->hash_next = *bucket;
	*bucket = state;
	*states->end = state;
	states->end = &state->next;
	states->n++;
	return state;
}

/* ---- records ---- */

/* Sizes and places are of a file that can be, and no image reaches behind its place. */
static bool makes_sense(uint32_t block_size, const struct cmek_section *section)
{
	uint64_t size = section->plain_size, max = cmek_plain_size_max(block_size);
	const struct cmek_item *item = section->items;
	uint64_t groups;
	size_t i;

	if (size > max)
		return false;
	/* a part may lie behind the size that holds until the last one comes */
	groups = cmek_group_count(block_size, section->flags & CMEK_FILE_PART ? max : size);
	for (i = 0; i < section->n_items; i++, item++) {
		if (item->type == CMEK_ITEM_MAP && item->first >= groups)
			return false;
		if (item->type != CMEK_ITEM_BLOCK)
			continue;
		if (item->first / CMEK_GROUP_BLOCKS >= groups || item->count > block_size)
			return false;
		if (!(section->flags & CMEK_FILE_PART) &&
		    item->count > cmek_block_plain_len(block_size, size, item->first))
			return false;
	}
	return true;
}

static int add_items(struct cmek_last_state *state, const struct cmek_section *section, uint64_t images_off)
{
	size_t i;
	int r = 0;

	for (i = 0; r == 0 && i < section->n_items; i++) {
		const struct cmek_item *item = section->items + i;
		uint64_t off = images_off + item->image * CMEK_JOURNAL_UNIT;

		if (item->type == CMEK_ITEM_MAP)
			r = set_image(state, CMEK_PLACE_PAGE(item->first), off, CMEK_MAP_BYTES);
		else if (item->type == CMEK_ITEM_BLOCK)
			r = set_image(state, CMEK_PLACE_BLOCK(item->first), off, (uint32_t)item->count);
		else
			outdate(state, item->first, item->first + item->count, false);
		/* Of groups that have become absent, or nothing but holes, the older page does not count either. */
		if (item->type == CMEK_ITEM_PUNCH)
			outdate(state, (item->first + CMEK_GROUP_BLOCKS - 1) / CMEK_GROUP_BLOCKS,
				(item->first + item->count) / CMEK_GROUP_BLOCKS, true);
	}
	return r;
}

int cmek_last_states_add(struct cmek_last_states *states, struct cmek_section *section, uint64_t images_off)
{
	bool touch = section->flags & CMEK_FILE_TOUCH, unfinished = section->flags & (CMEK_FILE_TOUCH | CMEK_FILE_PART);
	struct cmek_last_state *state;
	bool cut;

	if (!makes_sense(states->block_size, section))
		return -EUCLEAN;
	state = find_or_add(states, section);
	if (state == NULL)
		return -ENOMEM;
	free(state->path);
	state->path = section->path;
	section->path = NULL;
	/* A touch changes nothing; if the content is new its id may not even be drawn. */
	if (section->flags & CMEK_FILE_NEW_ID) {
		if (!touch && ((section->plain_size == 0 && !unfinished) || !is_newest_id(state, section->file_id))) {
			outdate(state, 0, UINT64_MAX, false);
			outdate(state, 0, UINT64_MAX, true);
		}
		state->new_id = true;
	}
	if (!(touch && section->flags & CMEK_FILE_NEW_ID) && add_id(state, section->file_id) < 0)
		return -ENOMEM;
	/* What lies behind an end that is not final may still get its page. */
	cut = state->unfinished || section->plain_size < state->plain_size;
	state->unfinished = unfinished;
	state->plain_size = section->plain_size;
	if (section->flags & CMEK_FILE_MTIME) {
		state->has_mtime = true;
		state->mtime = section->mtime;
	}
	if (cut && !unfinished)
		outdate_behind(state, states->block_size, state->plain_size);
	return add_items(state, section, images_off);
}

void cmek_last_states_settle(struct cmek_last_states *states)
{
	struct cmek_last_state *state;

	for (state = states->first; state != NULL; state = state->next)
		if (state->unfinished)
			outdate_behind(state, states->block_size, state->plain_size);
}
