/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TREE_NODE_H
#define CMEK_TREE_NODE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "fs/tree/store.h"

/*
 * The node table: node numbers <-> inodes of the store, with the kernel's lookup counts. Slots of 128 bytes in a
 * memfd, so that another process can map them later; it grows as needed inside one reserved range of addresses.
 *
 * A node lives while the kernel has lookups on it or somebody in here holds a reference (children on the directory of
 * their hint, requests at work). Then its slot gets a new generation and is used again. Thread-safe; find-or-insert is
 * one critical section of one of 64 shards.
 *
 * The hint of a node is a place where it can be found: a directory node and the name of the entry in the store. It is
 * needed where inodes can't be opened by handle, and to find a file's directory.
 */
struct cmek_node_key {
	uint64_t dev;
	uint64_t ino;
	struct cmek_handle handle;
};

/* A copy of what a slot says; valid as long as the reference is held. */
struct cmek_node {
	uint64_t number;
	struct cmek_node_key key;
	mode_t type; /* S_IFMT bits */
	int pin_fd;  /* O_PATH descriptor of an inode without a name, or -1; borrowed */
};

struct cmek_node_table;

/* Called without locks when a node is gone. */
typedef void (*cmek_node_gone_fn)(void *arg, uint64_t number, mode_t type);

int cmek_node_table_new(uint64_t max_nodes, cmek_node_gone_fn gone, void *arg, struct cmek_node_table **ret_table,
			struct cmek_error *err);
void cmek_node_table_free(struct cmek_node_table *table); /* closes pins; NULL allowed */
/* The memfd (borrowed), and how many slots of it are in use or were. */
int cmek_node_table_fd(const struct cmek_node_table *table);
uint64_t cmek_node_table_high(struct cmek_node_table *table);

/*
 * Finds or inserts the node and counts one lookup. The first node ever inserted is the root, number 1; it never goes.
 * parent (known, or 0 for the root) and entry are its hint if it has none yet; with `move` also if it has another one.
 * -ENFILE: the table is full; -ENOMEM.
 */
int cmek_node_enter(struct cmek_node_table *table, const struct cmek_node_key *key, mode_t type, uint64_t parent,
		    const char *entry, bool move, bool data, uint64_t *ret_number);
/* n lookups less. Unknown numbers are ignored: the kernel's word is not trusted. */
void cmek_node_forget(struct cmek_node_table *table, uint64_t number, uint64_t n);

/*
 * Makes the number mean nothing (-ESTALE) and its inode unknown, so that it is entered under another number. The slot is
 * kept until the lookups on it are forgotten. Not for nodes that others have as their hint.
 */
void cmek_node_retire(struct cmek_node_table *table, uint64_t number);

/*
 * Whether the store file has data, as it is known to be: told at a node's first look-up (`data` of cmek_node_enter()), and
 * by cmek_node_set_data() from then on. Unknown numbers: false, and nothing.
 */
bool cmek_node_has_data(struct cmek_node_table *table, uint64_t number);
void cmek_node_set_data(struct cmek_node_table *table, uint64_t number, bool data);

/* A reference and a copy; each success is paired with cmek_node_put(). -ESTALE: no such node. */
int cmek_node_get(struct cmek_node_table *table, uint64_t number, struct cmek_node *ret_node);
void cmek_node_put(struct cmek_node_table *table, uint64_t number);
/* The same by key: -ENOENT when the inode is not known. */
int cmek_node_find(struct cmek_node_table *table, const struct cmek_node_key *key, struct cmek_node *ret_node);

/* -ENOENT: it has none. The parent stays known at least as long as it is the hint. */
int cmek_node_hint(struct cmek_node_table *table, uint64_t number, uint64_t *ret_parent, char ret_entry[256]);
/* The number of its inode in the store; 0: there is no such node. */
uint64_t cmek_node_inode(struct cmek_node_table *table, uint64_t number);
/* entry NULL (and parent 0): none. On -ENOMEM the node has no hint. */
int cmek_node_set_hint(struct cmek_node_table *table, uint64_t number, uint64_t parent, const char *entry);
/*
 * Takes over *fd (nulled to -1), an O_PATH descriptor, as what the node is from now on opened by. If it has one
 * already, *fd is closed.
 */
void cmek_node_pin(struct cmek_node_table *table, uint64_t number, int *fd);

/* The first node that the kernel knows at or behind *index (0 at first), which is moved past it; 0: there are no more. */
uint64_t cmek_node_next(struct cmek_node_table *table, uint64_t *index);

/*
 * Marks (not 0) on directories that wait for a flush. A marked node stays known. Clearing happens only if the mark is
 * still the given one.
 */
void cmek_node_mark(struct cmek_node_table *table, uint64_t number, uint32_t mark);
uint32_t cmek_node_mark_of(struct cmek_node_table *table, uint64_t number); /* 0: none */
void cmek_node_clear_mark(struct cmek_node_table *table, uint64_t number, uint32_t mark);
uint32_t cmek_node_n_marked(struct cmek_node_table *table);
/* The first marked node at or behind *index (0 at first), which is moved past it; 0: there are no more. */
uint64_t cmek_node_next_marked(struct cmek_node_table *table, uint64_t *index, uint32_t *ret_mark);

#endif
