/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Notes what is renamed and linked while somebody goes through the whole tree: a walk can miss what moves from where it has
 * not been to where it has. It must not know what that somebody looks for.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "fs/tree/tree_impl.h"

/* So many are noted; it takes 16 MiB. With more the walk proves nothing and has to be done again. */
#define NOTES_MAX (1u << 20)
#define FIRST_CAPACITY 256u

static size_t slot_of(const struct cmek_tree_moves *moves, uint64_t node)
{
	size_t i = (size_t)(node * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (moves->capacity * 2 - 1);

	while (moves->seen[i] != 0 && moves->seen[i] != node)
		i = (i + 1) & (moves->capacity * 2 - 1);
	return i;
}

/* Room for one more: the notes in their order, and a hash table of twice as many slots to find them in. */
static bool grow_locked(struct cmek_tree_moves *moves)
{
	size_t capacity = moves->capacity ? moves->capacity * 2 : FIRST_CAPACITY, i;
	uint64_t *notes, *seen;

	if (moves->n < moves->capacity)
		return true;
	if (capacity > NOTES_MAX)
		return false;
	seen = calloc(capacity * 2, sizeof(*seen));
	notes = seen ? reallocarray(moves->notes, capacity, sizeof(*notes)) : NULL;
	if (!notes) {
		free(seen);
		return false;
	}
	free(moves->seen);
	moves->notes = notes;
	moves->seen = seen;
	moves->capacity = capacity;
	for (i = 0; i < moves->n; i++)
		moves->seen[slot_of(moves, notes[i])] = notes[i];
	return true;
}

/* The lookup on the node is taken over. */
static void note(struct cmek_tree *tree, uint64_t node)
{
	struct cmek_tree_moves *moves = &tree->moves;
	bool taken = false;

	pthread_mutex_lock(&moves->lock);
	if (!grow_locked(moves)) {
		moves->lost = true;
	} else if (moves->seen[slot_of(moves, node)] != node) {
		moves->seen[slot_of(moves, node)] = node;
		moves->notes[moves->n++] = node;
		taken = true;
	}
	pthread_mutex_unlock(&moves->lock);
	if (!taken)
		cmek_tree_forget(tree, node, 1);
}

static void note_lost(struct cmek_tree *tree)
{
	pthread_mutex_lock(&tree->moves.lock);
	tree->moves.lost = true;
	pthread_mutex_unlock(&tree->moves.lock);
}

void cmek_tree_note_entry(struct cmek_tree *tree, const struct cmek_tree_place *place, const struct cmek_store_stat *st)
{
	struct cmek_store_stat copy = *st;
	struct cmek_entry entry;

	if (!atomic_load(&tree->moves.watched))
		return;
	if (cmek_tree_enter(tree, place, -1, &copy, &entry) == 0)
		note(tree, entry.node);
	else
		note_lost(tree);
}

void cmek_tree_note_link(struct cmek_tree *tree, const struct cmek_node *node, const struct cmek_tree_place *place)
{
	uint64_t number;

	if (!atomic_load(&tree->moves.watched))
		return;
	if (cmek_node_enter(tree->nodes, &node->key, node->type, place->dir.fd.node.number, place->name->entry, false,
			    false, &number) == 0)
		note(tree, number);
	else
		note_lost(tree);
}

void cmek_tree_moves_watch(struct cmek_tree *tree)
{
	unsigned i;

	(void)cmek_tree_moves_end(tree);
	atomic_store(&tree->moves.watched, true);
	/* Who moves something holds a name's lock from before it asks whether that is to be noted until it is done. */
	for (i = 0; i < CMEK_TREE_NAME_LOCKS; i++) {
		pthread_mutex_lock(&tree->name_locks[i]);
		pthread_mutex_unlock(&tree->name_locks[i]);
	}
}

bool cmek_tree_moves_next(struct cmek_tree *tree, uint64_t *ret_node)
{
	struct cmek_tree_moves *moves = &tree->moves;
	bool found;

	pthread_mutex_lock(&moves->lock);
	found = moves->next < moves->n;
	if (found)
		*ret_node = moves->notes[moves->next++];
	pthread_mutex_unlock(&moves->lock);
	return found;
}

bool cmek_tree_moves_end(struct cmek_tree *tree)
{
	struct cmek_tree_moves *moves = &tree->moves;
	uint64_t *notes, *seen;
	size_t next, n;
	bool lost;

	atomic_store(&moves->watched, false);
	pthread_mutex_lock(&moves->lock);
	lost = moves->lost || moves->next < moves->n;
	notes = moves->notes;
	seen = moves->seen;
	next = moves->next;
	n = moves->n;
	moves->notes = moves->seen = NULL;
	moves->next = moves->n = moves->capacity = 0;
	moves->lost = false;
	pthread_mutex_unlock(&moves->lock);
	for (; next < n; next++)
		cmek_tree_forget(tree, notes[next], 1);
	free(notes);
	free(seen);
	return !lost;
}
