/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_CONTENT_ABSENT_H
#define CMEK_CONTENT_ABSENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A set of group numbers as ascending ranges that neither overlap nor touch: the groups of one file that are holes
 * and have no map page in the store. Not thread-safe: its owner locks. A zeroed struct is the empty set.
 */
struct cmek_absent_range {
	uint64_t first;
	uint64_t count;
};

struct cmek_absent {
	struct cmek_absent_range *ranges;
	size_t n;
	size_t capacity;
};

void cmek_absent_done(struct cmek_absent *set);
/* *ret_copy is overwritten. 0 or -ENOMEM. */
int cmek_absent_copy(const struct cmek_absent *set, struct cmek_absent *ret_copy);
bool cmek_absent_has(const struct cmek_absent *set, uint64_t group);
/* The first group from `group` on that is not in the set. */
uint64_t cmek_absent_skip(const struct cmek_absent *set, uint64_t group);
/* Adds first..first+count-1 (count may be 0). 0 or -ENOMEM with the set unchanged. */
int cmek_absent_add(struct cmek_absent *set, uint64_t first, uint64_t count);
/* Makes room so that the next cmek_absent_remove() of one group can't fail. 0 or -ENOMEM. */
int cmek_absent_reserve(struct cmek_absent *set);
void cmek_absent_remove(struct cmek_absent *set, uint64_t group);
/* Forgets every group from `end` on. */
void cmek_absent_truncate(struct cmek_absent *set, uint64_t end);
/* The range with the fewest groups; the set must not be empty. */
struct cmek_absent_range cmek_absent_smallest(const struct cmek_absent *set);

#endif
