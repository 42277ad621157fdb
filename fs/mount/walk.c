/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The walk through a tree in use: one level for each directory on the way down, with the entries of it that were read
 * ahead. It must not know what is done with what it meets.
 */
#include "config.h"

#include "fs/mount/walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Entries read ahead in each directory on the way. */
#define AHEAD 64u

struct level {
	struct level *up;
	struct cmek_walk *walk;
	uint64_t node; /* with a lookup, which is ours */
	uint64_t off;  /* where the listing goes on */
	bool ended;
	unsigned n, next; /* of ahead: how many, and which is next */
	struct cmek_entry ahead[AHEAD];
};

struct cmek_walk {
	struct cmek_tree *tree;
	struct level *level;
	struct level *below; /* the directory that was given out last: entered by the next call */
	uint64_t bad, unseen, lost;
	uint64_t unseen_in; /* the directory of the last one, kept known; 0 = none */
	uint64_t given; /* what was given out last, if it is no directory; 0 = none */
};

static struct level *level_new(struct cmek_walk *walk, uint64_t node)
{
	struct level *level = calloc(1, sizeof(*level));

	if (level) {
		level->walk = walk;
		level->node = node;
	}
	return level;
}

static void level_free(struct cmek_walk *walk, struct level *level)
{
	if (!level)
		return;
	for (; level->next < level->n; level->next++)
		cmek_tree_forget(walk->tree, level->ahead[level->next].node, 1);
	if (level->node != CMEK_NODE_ROOT)
		cmek_tree_forget(walk->tree, level->node, 1);
	free(level);
}

int cmek_walk_new(struct cmek_tree *tree, uint64_t node, struct cmek_walk **ret_walk)
{
	struct cmek_walk *walk = calloc(1, sizeof(*walk));

	if (!walk)
		return -ENOMEM;
	walk->tree = tree;
	walk->level = level_new(walk, node);
	if (!walk->level) {
		free(walk);
		return -ENOMEM;
	}
	*ret_walk = walk;
	return 0;
}

void cmek_walk_free(struct cmek_walk *walk)
{
	struct level *level;

	if (!walk)
		return;
	if (walk->given)
		cmek_tree_forget(walk->tree, walk->given, 1);
	if (walk->unseen_in)
		cmek_tree_let_go(walk->tree, walk->unseen_in);
	level_free(walk, walk->below);
	while ((level = walk->level) != NULL) {
		walk->level = level->up;
		level_free(walk, level);
	}
	free(walk);
}

uint64_t cmek_walk_bad(const struct cmek_walk *walk)
{
	return walk->bad;
}

uint64_t cmek_walk_unseen(const struct cmek_walk *walk, uint64_t *ret_dir)
{
	*ret_dir = walk->unseen_in;
	return walk->unseen;
}

uint64_t cmek_walk_lost(const struct cmek_walk *walk)
{
	return walk->lost;
}

/* The level may be left before anybody asks where that was. */
static void note_unseen(struct cmek_walk *walk, uint64_t dir)
{
	walk->unseen++;
	if (walk->unseen_in)
		cmek_tree_let_go(walk->tree, walk->unseen_in);
	walk->unseen_in = cmek_tree_keep(walk->tree, dir) == 0 ? dir : 0;
}

static int take(void *arg, const char *name, const struct cmek_entry *entry, uint64_t next_off)
{
	struct level *level = arg;

	if (level->n == AHEAD)
		return 1;
	if (entry->node != 0)
		level->ahead[level->n++] = *entry;
	else if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
		note_unseen(level->walk, level->node);
	level->off = next_off;
	return 0;
}

static int read_ahead(struct cmek_walk *walk, struct level *level)
{
	uint64_t before = level->off;
	unsigned n_bad = 0;
	int r;

	level->n = level->next = 0;
	r = cmek_tree_walk_dir(walk->tree, level->node, level->off, take, level, &n_bad);
	walk->bad += n_bad;
	level->ended = r < 0 || level->off == before;
	/* One that was removed meanwhile is known still, and empty: this is rare, and can't be told from one that is elsewhere. */
	if (r == -ESTALE || r == -ENOENT) {
		walk->lost++;
		r = 0;
	}
	return r;
}

static void go_up(struct cmek_walk *walk)
{
	struct level *level = walk->level;

	walk->level = level->up;
	level_free(walk, level);
}

/* The next entry of the directories on the way; 0: there is none; -errno. */
static int find_next(struct cmek_walk *walk, struct cmek_entry *ret_entry)
{
	struct level *level;
	int r;

	while ((level = walk->level) != NULL) {
		if (level->next < level->n) {
			*ret_entry = level->ahead[level->next++];
			return 1;
		}
		if (level->ended) {
			go_up(walk);
			continue;
		}
		r = read_ahead(walk, level);
		if (r < 0)
			return r;
	}
	return 0;
}

int cmek_walk_next(struct cmek_walk *walk, struct cmek_entry *ret_entry)
{
	struct cmek_entry entry;
	int r;

	if (walk->below) {
		walk->below->up = walk->level;
		walk->level = walk->below;
		walk->below = NULL;
	}
	if (walk->given)
		cmek_tree_forget(walk->tree, walk->given, 1);
	walk->given = 0;
	r = find_next(walk, &entry);
	if (r != 1)
		return r;
	if (S_ISDIR(entry.st.st_mode)) {
		walk->below = level_new(walk, entry.node);
		if (!walk->below) {
			cmek_tree_forget(walk->tree, entry.node, 1);
			return -ENOMEM;
		}
	} else {
		walk->given = entry.node;
	}
	*ret_entry = entry;
	return 1;
}
