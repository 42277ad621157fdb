/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The set of absent groups of a file: a sorted array of ranges. Pure; knows nothing of files.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/content/absent.h"

void cmek_absent_done(struct cmek_absent *set)
{
	free(set->ranges);
	memset(set, 0, sizeof(*set));
}

int cmek_absent_copy(const struct cmek_absent *set, struct cmek_absent *ret_copy)
{
	struct cmek_absent copy = { .n = set->n, .capacity = set->n };

	if (set->n > 0) {
		copy.ranges = reallocarray(NULL, set->n, sizeof(*copy.ranges));
		if (copy.ranges == NULL)
			return -ENOMEM;
		memcpy(copy.ranges, set->ranges, set->n * sizeof(*copy.ranges));
	}
	*ret_copy = copy;
	return 0;
}

/* Index of the first range that ends behind `group`; set->n if none. */
static size_t find(const struct cmek_absent *set, uint64_t group)
{
	size_t low = 0, high = set->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (set->ranges[mid].first + set->ranges[mid].count > group)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

bool cmek_absent_has(const struct cmek_absent *set, uint64_t group)
{
	size_t i = find(set, group);

	return i < set->n && set->ranges[i].first <= group;
}

uint64_t cmek_absent_skip(const struct cmek_absent *set, uint64_t group)
{
	size_t i = find(set, group);

	return i < set->n && set->ranges[i].first <= group ? set->ranges[i].first + set->ranges[i].count : group;
}

int cmek_absent_reserve(struct cmek_absent *set)
{
	size_t capacity = set->capacity == 0 ? 4 : set->capacity * 2;
	struct cmek_absent_range *ranges;

	if (set->n < set->capacity)
		return 0;
	ranges = reallocarray(set->ranges, capacity, sizeof(*ranges));
	if (ranges == NULL)
		return -ENOMEM;
	set->ranges = ranges;
	set->capacity = capacity;
	return 0;
}

static void insert_at(struct cmek_absent *set, size_t i, uint64_t first, uint64_t count)
{
	memmove(set->ranges + i + 1, set->ranges + i, (set->n - i) * sizeof(*set->ranges));
	set->ranges[i].first = first;
	set->ranges[i].count = count;
	set->n++;
}

static void erase(struct cmek_absent *set, size_t from, size_t to)
{
	memmove(set->ranges + from, set->ranges + to, (set->n - to) * sizeof(*set->ranges));
	set->n -= to - from;
}

int cmek_absent_add(struct cmek_absent *set, uint64_t first, uint64_t count)
{
	uint64_t end = first + count;
	size_t from, to;
	int r = cmek_absent_reserve(set);

	if (r < 0 || count == 0)
		return r;
	/* Everything from the range that touches us in front to the one that touches behind becomes one. */
	from = first == 0 ? 0 : find(set, first - 1);
	for (to = from; to < set->n && set->ranges[to].first <= end; to++) {
		uint64_t to_end = set->ranges[to].first + set->ranges[to].count;

		if (set->ranges[to].first < first)
			first = set->ranges[to].first;
		if (to_end > end)
			end = to_end;
	}
	if (to == from) {
		insert_at(set, from, first, end - first);
	} else {
		set->ranges[from].first = first;
		set->ranges[from].count = end - first;
		erase(set, from + 1, to);
	}
	return 0;
}

void cmek_absent_remove(struct cmek_absent *set, uint64_t group)
{
	size_t i = find(set, group);
	struct cmek_absent_range *range;
	uint64_t behind;

	if (i == set->n || set->ranges[i].first > group)
		return;
	range = set->ranges + i;
	behind = range->first + range->count - group - 1;
	range->count = group - range->first;
	if (range->count == 0) {
		range->first = group + 1;
		range->count = behind;
		if (behind == 0)
			erase(set, i, i + 1);
	} else if (behind > 0) {
		assert(set->n < set->capacity); /* cmek_absent_reserve() came first */
		insert_at(set, i + 1, group + 1, behind);
	}
}

void cmek_absent_truncate(struct cmek_absent *set, uint64_t end)
{
	size_t i = find(set, end);

	if (i < set->n && set->ranges[i].first < end) {
		set->ranges[i].count = end - set->ranges[i].first;
		i++;
	}
	set->n = i;
}

struct cmek_absent_range cmek_absent_smallest(const struct cmek_absent *set)
{
	struct cmek_absent_range best;
	size_t i;

	assert(set->n > 0);
	best = set->ranges[0];
	for (i = 1; i < set->n; i++)
		if (set->ranges[i].count < best.count)
			best = set->ranges[i];
	return best;
}
