/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The meta data of a journal record: the first byte says how many images there are, the rest is sealed as meta data. What
 * the parser takes has to be within its bounds, and to come out again when it is encoded anew.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "fs/content/block_map.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/seal_meta.h"

static const struct cmek_record_id id = { { 1 }, { 2 }, 3 };

static struct cmek_keyring *fuzz_ring(void)
{
	static struct cmek_keyring *ring;
	uint8_t wrapped[CMEK_DEK_WRAPPED_LEN];
	struct cmek_secret *kek = NULL;

	if (ring != NULL)
		return ring;
	cmek_secret_allow_unlocked();
	FUZZ_CHECK(cmek_secret_new_random(CMEK_KEY_KEK, 32, &kek, NULL) == 0);
	FUZZ_CHECK(cmek_keyring_new(id.volume, &kek, &ring, NULL) == 0);
	FUZZ_CHECK(cmek_keyring_make_dek(ring, 1, 0, CMEK_DEK_ACTIVE, wrapped, NULL) == 0);
	return ring;
}

static void check_section(const struct cmek_section *section, size_t units)
{
	size_t i;

	FUZZ_CHECK(section->handle.len <= CMEK_HANDLE_MAX && section->path != NULL);
	FUZZ_CHECK(section->mtime.tv_nsec >= 0 && section->mtime.tv_nsec < 1000000000);
	for (i = 0; i < section->n_items; i++) {
		const struct cmek_item *item = section->items + i;

		if (item->type == CMEK_ITEM_MAP || item->type == CMEK_ITEM_BLOCK) {
			FUZZ_CHECK(item->count > 0 && item->count <= CMEK_BLOCK_MAX);
			FUZZ_CHECK(item->image * CMEK_JOURNAL_UNIT + item->count <= units * CMEK_JOURNAL_UNIT);
		} else {
			FUZZ_CHECK(item->type == CMEK_ITEM_INPLACE || item->type == CMEK_ITEM_PUNCH);
			FUZZ_CHECK(item->first + item->count >= item->first);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t units = size > 0 ? data[0] % 20 : 0, len = size > 0 ? size - 1 : 0, bytes, n = 0, i;
	const uint8_t *meta = data + (size > 0), *images = NULL;
	struct cmek_section *sections = NULL;
	const struct cmek_section **list;
	uint8_t *buf, *again;
	int r;

	if (len > CMEK_RECORD_META_MAX)
		return 0;
	buf = seal_any_meta(fuzz_ring(), &id, meta, len, units, &bytes);
	FUZZ_CHECK(buf != NULL);
	r = cmek_record_decode(fuzz_ring(), &id, buf, bytes, &sections, &n, &images);
	FUZZ_CHECK(r == 0 || r == -EUCLEAN || r == -ENOMEM);
	if (r < 0) {
		free(buf);
		return 0;
	}
	FUZZ_CHECK(images + units * CMEK_JOURNAL_UNIT == buf + bytes);
	list = calloc(n + 1, sizeof(*list));
	again = malloc(bytes);
	FUZZ_CHECK(list != NULL && again != NULL);
	for (i = 0; i < n; i++) {
		check_section(sections + i, units);
		list[i] = sections + i;
	}
	/* the same bytes: there is one way only to say a thing */
	FUZZ_CHECK(cmek_record_meta_bytes(list, n) == bytes - units * CMEK_JOURNAL_UNIT);
	FUZZ_CHECK(cmek_record_encode(fuzz_ring(), &id, list, n, NULL, 0, again) == 0);
	FUZZ_CHECK(cmek_load32(again + 12) == len);
	for (i = 0; i < n; i++)
		cmek_section_done(sections + i);
	free(sections);
	n = 0;
	FUZZ_CHECK(units > 0 || cmek_record_decode(fuzz_ring(), &id, again, bytes, &sections, &n, &images) == 0);
	FUZZ_CHECK(units > 0 || memcmp(again + CMEK_RECORD_HEAD_BYTES, meta, len) == 0);
	for (i = 0; i < n; i++)
		cmek_section_done(sections + i);
	if (units == 0)
		free(sections);
	free(list);
	free(again);
	free(buf);
	return 0;
}
