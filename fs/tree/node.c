/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The node table. Knows numbers, keys, counts and hints; opens nothing and knows neither keys of the volume nor plain
 * names. (Longer than others, so that nobody else can touch a slot.)
 *
 * Locks: shard.lock guards the fields of all nodes whose (dev, ino) falls into the shard, and its hash chains;
 * alloc_lock the free list and the growth. alloc_lock may be taken under a shard's lock, never two shards at once.
 */
#include "config.h"

#include "fs/tree/node.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define N_SHARDS 64
#define FIRST_BUCKETS 64
#define GROW_SLOTS 8192 /* 1 MiB */
#define ROOT_INDEX 1

enum {
	SLOT_USED = 1,
	SLOT_RETIRED = 2, /* in no hash chain any more */
	SLOT_DATA = 4,
};

/* In the shared mapping: no pointers. Index 0 is never used and means none. */
struct slot {
	uint32_t generation; /* relaxed atomic: read before the shard is known */
	uint16_t shard;      /* relaxed atomic, as above */
	uint16_t flags;
	uint64_t n_lookups;
	uint32_t n_refs;
	uint32_t next; /* in its hash chain, or in the free list */
	uint64_t dev;
	uint64_t ino;
	uint64_t parent; /* number of the hint's directory, 0 = no hint; that directory has a reference of ours */
	int32_t handle_type;
	uint16_t handle_len;
	uint16_t mode;     /* S_IFMT bits */
	uint32_t pin_fd1;  /* descriptor + 1, 0 = none */
	uint8_t handle[CMEK_HANDLE_MAX];
	uint32_t mark;     /* 0 = none; else the node has a reference of its own */
};

_Static_assert(sizeof(struct slot) == 128, "slots have 128 bytes");

struct shard {
	pthread_mutex_t lock;
	uint32_t *buckets;
	uint32_t n_buckets; /* a power of two */
	uint32_t n_nodes;
} __attribute__((aligned(64)));

struct cmek_node_table {
	int fd;
	uint64_t max_slots;
	struct slot *slots; /* max_slots reserved, n_mapped there */
	char **entries;     /* names of the hints, by index: private memory, guarded by the node's shard */
	cmek_node_gone_fn gone;
	void *gone_arg;

	pthread_mutex_t alloc_lock;
	uint64_t n_mapped;
	uint64_t n_used; /* atomic: slots from here on were never used */
	uint32_t free_list;
	uint32_t n_marked; /* atomic */

	struct shard shards[N_SHARDS];
};

static uint64_t mix(uint64_t h)
{
	h ^= h >> 33;
	h *= UINT64_C(0xff51afd7ed558ccd);
	h ^= h >> 33;
	h *= UINT64_C(0xc4ceb9fe1a85ec53);
	return h ^ h >> 33;
}

static uint64_t hash_of(uint64_t dev, uint64_t ino)
{
	return mix(ino ^ mix(dev));
}

static unsigned shard_of(uint64_t hash)
{
	return (unsigned)(hash >> 58);
}

static uint64_t number_of(const struct slot *slot, uint32_t index)
{
	return index | (uint64_t)slot->generation << 32;
}

/* Making and freeing the table */

int cmek_node_table_new(uint64_t max_nodes, cmek_node_gone_fn gone, void *arg, struct cmek_node_table **ret_table,
			struct cmek_error *err)
{
	struct cmek_node_table *t = calloc(1, sizeof *t);
	unsigned i;
	void *p;
	int r = 0;

	if (!t)
		return cmek_error_sys(err, ENOMEM, "node table");
	t->fd = -1;
	t->slots = MAP_FAILED;
	t->entries = MAP_FAILED;
	t->gone = gone;
	t->gone_arg = arg;
	t->n_used = ROOT_INDEX;
	t->max_slots = max_nodes + 1 < UINT32_MAX ? max_nodes + 1 : UINT32_MAX;
	pthread_mutex_init(&t->alloc_lock, NULL);
	for (i = 0; i < N_SHARDS; i++)
		pthread_mutex_init(&t->shards[i].lock, NULL);
	for (i = 0; i < N_SHARDS; i++) {
		t->shards[i].n_buckets = FIRST_BUCKETS;
		t->shards[i].buckets = calloc(FIRST_BUCKETS, sizeof(uint32_t));
		if (!t->shards[i].buckets)
			r = -ENOMEM;
	}
	if (r == 0) {
		t->fd = memfd_create("cmekfs-nodes", MFD_CLOEXEC);
		if (t->fd < 0)
			r = -errno;
	}
	if (r == 0) {
		p = mmap(NULL, t->max_slots * sizeof(struct slot), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
			 t->fd, 0);
		t->slots = p;
		t->entries = mmap(NULL, t->max_slots * sizeof(char *), PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (p == MAP_FAILED || t->entries == MAP_FAILED)
			r = -errno;
	}
	if (r) {
		cmek_node_table_free(t);
		return cmek_error_sys(err, -r, "node table");
	}
	*ret_table = t;
	return 0;
}

void cmek_node_table_free(struct cmek_node_table *table)
{
	uint64_t i;

	if (!table)
		return;
	for (i = ROOT_INDEX; i < table->n_used; i++) {
		if (table->slots[i].pin_fd1)
			close((int)table->slots[i].pin_fd1 - 1);
		free(table->entries[i]);
	}
	for (i = 0; i < N_SHARDS; i++) {
		free(table->shards[i].buckets);
		pthread_mutex_destroy(&table->shards[i].lock);
	}
	pthread_mutex_destroy(&table->alloc_lock);
	if (table->slots != MAP_FAILED)
		munmap(table->slots, table->max_slots * sizeof(struct slot));
	if (table->entries != MAP_FAILED)
		munmap(table->entries, table->max_slots * sizeof(char *));
	if (table->fd >= 0)
		close(table->fd);
	free(table);
}

int cmek_node_table_fd(const struct cmek_node_table *table)
{
	return table->fd;
}

uint64_t cmek_node_table_high(struct cmek_node_table *table)
{
	return __atomic_load_n(&table->n_used, __ATOMIC_ACQUIRE) - ROOT_INDEX;
}

/* Slots */

static int slot_alloc(struct cmek_node_table *t, uint32_t *ret_index)
{
	uint64_t n;
	int r = 0;

	pthread_mutex_lock(&t->alloc_lock);
	if (t->free_list) {
		*ret_index = t->free_list;
		t->free_list = t->slots[*ret_index].next;
		goto out;
	}
	n = t->n_used;
	if (n >= t->max_slots) {
		r = -ENFILE;
		goto out;
	}
	if (n >= t->n_mapped) {
		/* Real pages at once: a shortage is an error here and not a signal at the first access. */
		do
			r = posix_fallocate(t->fd, (off_t)(t->n_mapped * sizeof(struct slot)),
					    GROW_SLOTS * sizeof(struct slot));
		while (r == EINTR);
		if (r) {
			r = -ENOMEM;
			goto out;
		}
		t->n_mapped += GROW_SLOTS;
	}
	*ret_index = (uint32_t)n;
	__atomic_store_n(&t->n_used, n + 1, __ATOMIC_RELEASE);
out:
	pthread_mutex_unlock(&t->alloc_lock);
	return r;
}

static void slot_free(struct cmek_node_table *t, uint32_t index)
{
	pthread_mutex_lock(&t->alloc_lock);
	/* A generation that came round would repeat numbers: such a slot is left alone (after 2^32 uses). */
	if (t->slots[index].generation) {
		t->slots[index].next = t->free_list;
		t->free_list = index;
	}
	pthread_mutex_unlock(&t->alloc_lock);
}

/* Locks the shard of a live node; NULL (nothing locked) when there is no such node. */
static struct shard *lock_node(struct cmek_node_table *t, uint64_t number, struct slot **ret_slot)
{
	uint32_t index = (uint32_t)number, generation = (uint32_t)(number >> 32);
	struct shard *shard;
	struct slot *slot;

	if (index == 0 || index >= __atomic_load_n(&t->n_used, __ATOMIC_ACQUIRE))
		return NULL;
	slot = &t->slots[index];
	for (;;) {
		unsigned i = __atomic_load_n(&slot->shard, __ATOMIC_RELAXED);

		shard = &t->shards[i];
		pthread_mutex_lock(&shard->lock);
		if (__atomic_load_n(&slot->shard, __ATOMIC_RELAXED) == i)
			break;
		pthread_mutex_unlock(&shard->lock); /* freed and used again in between */
	}
	/*
	 * With the lock of the shard that the slot names, a used slot with our generation can't change: it would be
	 * freed under this lock. A slot between two lives has no SLOT_USED, or is not in this shard any more.
	 */
	if (__atomic_load_n(&slot->generation, __ATOMIC_RELAXED) != generation ||
	    !(__atomic_load_n(&slot->flags, __ATOMIC_RELAXED) & SLOT_USED)) {
		pthread_mutex_unlock(&shard->lock);
		return NULL;
	}
	*ret_slot = slot;
	return shard;
}

/* Hash chains; the caller holds the shard's lock */

static bool key_is(const struct slot *slot, const struct cmek_node_key *key)
{
	return slot->ino == key->ino && slot->dev == key->dev && slot->handle_len == key->handle.len &&
	       (slot->handle_len == 0 || (slot->handle_type == key->handle.type &&
					  memcmp(slot->handle, key->handle.bytes, slot->handle_len) == 0));
}

static uint32_t *bucket_of(struct shard *shard, uint64_t hash)
{
	return &shard->buckets[hash & (shard->n_buckets - 1)];
}

static uint32_t find_locked(struct cmek_node_table *t, struct shard *shard, uint64_t hash,
			    const struct cmek_node_key *key)
{
	uint32_t i = *bucket_of(shard, hash);

	while (i && !key_is(&t->slots[i], key))
		i = t->slots[i].next;
	return i;
}

/* Twice the buckets; without memory the chains just get longer. */
static void rehash_locked(struct cmek_node_table *t, struct shard *shard)
{
	uint32_t n = shard->n_buckets * 2, i, *old = shard->buckets, *buckets = calloc(n, sizeof *buckets);
	uint32_t n_old = shard->n_buckets;

	if (!buckets)
		return;
	shard->buckets = buckets;
	shard->n_buckets = n;
	for (i = 0; i < n_old; i++) {
		uint32_t at = old[i];

		while (at) {
			struct slot *slot = &t->slots[at];
			uint32_t *bucket = bucket_of(shard, hash_of(slot->dev, slot->ino)), next = slot->next;

			slot->next = *bucket;
			*bucket = at;
			at = next;
		}
	}
	free(old);
}

static void insert_locked(struct cmek_node_table *t, struct shard *shard, uint64_t hash, uint32_t index)
{
	uint32_t *bucket;

	if (shard->n_nodes >= shard->n_buckets)
		rehash_locked(t, shard);
	bucket = bucket_of(shard, hash);
	t->slots[index].next = *bucket;
	*bucket = index;
	shard->n_nodes++;
}

static void remove_locked(struct cmek_node_table *t, struct shard *shard, uint32_t index)
{
	struct slot *slot = &t->slots[index];
	uint32_t *link = bucket_of(shard, hash_of(slot->dev, slot->ino));

	while (*link != index) {
		assert(*link);
		link = &t->slots[*link].next;
	}
	*link = slot->next;
	shard->n_nodes--;
}

static void copy_locked(const struct slot *slot, uint32_t index, struct cmek_node *ret_node)
{
	ret_node->number = number_of(slot, index);
	ret_node->key.dev = slot->dev;
	ret_node->key.ino = slot->ino;
	ret_node->key.handle.type = slot->handle_type;
	ret_node->key.handle.len = slot->handle_len;
	memcpy(ret_node->key.handle.bytes, slot->handle, slot->handle_len);
	ret_node->type = slot->mode;
	ret_node->pin_fd = (int)slot->pin_fd1 - 1;
}

/* Lives and deaths */

/*
 * Takes lookups and references away. A node that has neither any more is gone, and its directory has a reference less,
 * which can be its end too, and so on upwards: a loop, because trees can be deep.
 */
static void drop(struct cmek_node_table *t, uint64_t number, uint64_t lookups, uint32_t refs)
{
	while (number) {
		struct slot *slot;
		struct shard *shard = lock_node(t, number, &slot);
		uint32_t index = (uint32_t)number;
		uint64_t parent;
		mode_t type;
		char *entry;
		int pin_fd;

		if (!shard)
			return;
		slot->n_lookups -= lookups < slot->n_lookups ? lookups : slot->n_lookups;
		assert(slot->n_refs >= refs);
		slot->n_refs -= refs;
		if (slot->n_lookups || slot->n_refs || index == ROOT_INDEX) {
			pthread_mutex_unlock(&shard->lock);
			return;
		}
		if (!(slot->flags & SLOT_RETIRED))
			remove_locked(t, shard, index);
		parent = slot->parent;
		pin_fd = (int)slot->pin_fd1 - 1;
		type = slot->mode;
		entry = t->entries[index];
		t->entries[index] = NULL;
		slot->parent = 0;
		slot->pin_fd1 = 0;
		__atomic_store_n(&slot->flags, 0, __ATOMIC_RELAXED);
		__atomic_store_n(&slot->generation, slot->generation + 1, __ATOMIC_RELAXED);
		pthread_mutex_unlock(&shard->lock);

		free(entry);
		if (pin_fd >= 0)
			close(pin_fd);
		if (t->gone)
			t->gone(t->gone_arg, number, type);
		slot_free(t, index);
		number = parent;
		lookups = 0;
		refs = 1;
	}
}

static bool add_ref(struct cmek_node_table *t, uint64_t number)
{
	struct slot *slot;
	struct shard *shard = lock_node(t, number, &slot);

	if (!shard)
		return false;
	slot->n_refs++;
	pthread_mutex_unlock(&shard->lock);
	return true;
}

static bool has_hint_locked(struct cmek_node_table *t, uint32_t index, uint64_t parent, const char *entry)
{
	return t->slots[index].parent == parent && t->entries[index] && strcmp(t->entries[index], entry) == 0;
}

static void fill_new_locked(struct slot *slot, unsigned shard, const struct cmek_node_key *key, mode_t type, bool data)
{
	slot->n_lookups = 0;
	slot->n_refs = 0;
	slot->dev = key->dev;
	slot->ino = key->ino;
	slot->parent = 0;
	slot->handle_type = key->handle.type;
	slot->handle_len = key->handle.len;
	memset(slot->handle, 0, sizeof slot->handle);
	memcpy(slot->handle, key->handle.bytes, key->handle.len);
	slot->mode = (uint16_t)(type & S_IFMT);
	slot->pin_fd1 = 0;
	slot->mark = 0;
	__atomic_store_n(&slot->shard, (uint16_t)shard, __ATOMIC_RELAXED);
	__atomic_store_n(&slot->flags, SLOT_USED | (data ? SLOT_DATA : 0), __ATOMIC_RELAXED);
}

int cmek_node_enter(struct cmek_node_table *t, const struct cmek_node_key *key, mode_t type, uint64_t parent,
		    const char *entry, bool move, bool data, uint64_t *ret_number)
{
	uint64_t hash = hash_of(key->dev, key->ino), drop_parent = 0;
	struct shard *shard = &t->shards[shard_of(hash)];
	char *new_entry = NULL, *drop_entry = NULL;
	struct slot *slot;
	uint32_t index;
	int r = 0;

	assert(key->handle.len <= CMEK_HANDLE_MAX);
	/* The common case: it is known, and where it was. */
	pthread_mutex_lock(&shard->lock);
	index = find_locked(t, shard, hash, key);
	if (index && (!parent || has_hint_locked(t, index, parent, entry) || (t->slots[index].parent && !move))) {
		t->slots[index].n_lookups++;
		*ret_number = number_of(&t->slots[index], index);
		pthread_mutex_unlock(&shard->lock);
		return 0;
	}
	pthread_mutex_unlock(&shard->lock);

	if (parent) {
		if (!add_ref(t, parent))
			return -ESTALE;
		drop_parent = parent;
		new_entry = strdup(entry);
		if (!new_entry) {
			r = -ENOMEM;
			goto out;
		}
	}
	pthread_mutex_lock(&shard->lock);
	index = find_locked(t, shard, hash, key);
	if (!index) {
		r = slot_alloc(t, &index);
		if (r) {
			pthread_mutex_unlock(&shard->lock);
			goto out;
		}
		fill_new_locked(&t->slots[index], shard_of(hash), key, type, data);
		insert_locked(t, shard, hash, index);
	}
	slot = &t->slots[index];
	slot->n_lookups++;
	*ret_number = number_of(slot, index);
	if (parent && (!slot->parent || move)) {
		drop_parent = slot->parent;
		slot->parent = parent;
		drop_entry = t->entries[index];
		t->entries[index] = new_entry;
		new_entry = NULL;
	}
	pthread_mutex_unlock(&shard->lock);
out:
	free(new_entry);
	free(drop_entry);
	drop(t, drop_parent, 0, 1);
	return r;
}

void cmek_node_forget(struct cmek_node_table *t, uint64_t number, uint64_t n)
{
	if (n)
		drop(t, number, n, 0);
}

void cmek_node_retire(struct cmek_node_table *t, uint64_t number)
{
	struct slot *slot;
	struct shard *shard = lock_node(t, number, &slot);

	if (!shard)
		return;
	if (!(slot->flags & SLOT_RETIRED) && (uint32_t)number != ROOT_INDEX) {
		remove_locked(t, shard, (uint32_t)number);
		__atomic_store_n(&slot->flags, SLOT_USED | SLOT_RETIRED, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&shard->lock);
}

int cmek_node_get(struct cmek_node_table *t, uint64_t number, struct cmek_node *ret_node)
{
	struct slot *slot;
	struct shard *shard = lock_node(t, number, &slot);
	bool retired;

	if (!shard)
		return -ESTALE;
	retired = slot->flags & SLOT_RETIRED;
	if (!retired) {
		slot->n_refs++;
		copy_locked(slot, (uint32_t)number, ret_node);
	}
	pthread_mutex_unlock(&shard->lock);
	return retired ? -ESTALE : 0;
}

void cmek_node_put(struct cmek_node_table *t, uint64_t number)
{
	drop(t, number, 0, 1);
}

int cmek_node_find(struct cmek_node_table *t, const struct cmek_node_key *key, struct cmek_node *ret_node)
{
	uint64_t hash = hash_of(key->dev, key->ino);
	struct shard *shard = &t->shards[shard_of(hash)];
	uint32_t index;

	pthread_mutex_lock(&shard->lock);
	index = find_locked(t, shard, hash, key);
	if (index) {
		t->slots[index].n_refs++;
		copy_locked(&t->slots[index], index, ret_node);
	}
	pthread_mutex_unlock(&shard->lock);
	return index ? 0 : -ENOENT;
}

/* Hints and pins */

int cmek_node_hint(struct cmek_node_table *t, uint64_t number, uint64_t *ret_parent, char ret_entry[256])
{
	struct slot *slot;
	struct shard *shard = lock_node(t, number, &slot);
	const char *entry;
	int r = -ENOENT;

	if (!shard)
		return -ESTALE;
	entry = t->entries[(uint32_t)number];
	if (slot->parent && entry) {
		*ret_parent = slot->parent;
		memcpy(ret_entry, entry, strlen(entry) + 1);
		r = 0;
	}
	pthread_mutex_unlock(&shard->lock);
	return r;
}

uint64_t cmek_node_inode(struct cmek_node_table *t, uint64_t number)
{
	struct slot *slot;
	struct shard *shard = lock_node(t, number, &slot);
	uint64_t ino;

	if (!shard)
		return 0;
	ino = slot->ino;
	pthread_mutex_unlock(&shard->lock);
	return ino;
}

int cmek_node_set_hint(struct cmek_node_table *t, uint64_t number, uint64_t parent, const char *entry)
{
	char *new_entry = entry ? strdup(entry) : NULL, *drop_entry;
	int r = entry && !new_entry ? -ENOMEM : 0;
	uint64_t drop_parent;
	struct shard *shard;
	struct slot *slot;

	if (!new_entry)
		parent = 0;
	if (parent && !add_ref(t, parent)) {
		free(new_entry);
		return -ESTALE;
	}
	shard = lock_node(t, number, &slot);
	if (!shard) {
		free(new_entry);
		drop(t, parent, 0, 1);
		return -ESTALE;
	}
	drop_parent = slot->parent;
	drop_entry = t->entries[(uint32_t)number];
	slot->parent = parent;
	t->entries[(uint32_t)number] = new_entry;
	pthread_mutex_unlock(&shard->lock);
	free(drop_entry);
	drop(t, drop_parent, 0, 1);
	return r;
}

void cmek_node_pin(struct cmek_node_table *t, uint64_t number, int *fd)
{
	struct slot *slot;
	struct shard *shard = lock_node(t, number, &slot);

	if (shard) {
		if (!slot->pin_fd1) {
			slot->pin_fd1 = (uint32_t)*fd + 1;
			*fd = -1;
		}
		pthread_mutex_unlock(&shard->lock);
	}
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Marks */

void cmek_node_mark(struct cmek_node_table *t, uint64_t number, uint32_t mark)
{
	struct slot *slot;
	struct shard *shard = lock_node(t, number, &slot);

	if (!shard)
		return;
	if (!slot->mark) {
		slot->n_refs++;
		__atomic_fetch_add(&t->n_marked, 1, __ATOMIC_RELAXED);
	}
	slot->mark = mark;
	pthread_mutex_unlock(&shard->lock);
}

bool cmek_node_has_data(struct cmek_node_table *t, uint64_t number)
{
	struct slot *slot;
	struct shard *shard = lock_node(t, number, &slot);
	bool data;

	if (!shard)
		return false;
	data = slot->flags & SLOT_DATA;
	pthread_mutex_unlock(&shard->lock);
	return data;
}

void cmek_node_set_data(struct cmek_node_table *t, uint64_t number, bool data)
{
	struct slot *slot;
	struct shard *shard = lock_node(t, number, &slot);

	if (!shard)
		return;
	__atomic_store_n(&slot->flags, data ? slot->flags | SLOT_DATA : slot->flags & ~SLOT_DATA, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&shard->lock);
}

uint32_t cmek_node_mark_of(struct cmek_node_table *t, uint64_t number)
{
	struct slot *slot;
	struct shard *shard = lock_node(t, number, &slot);
	uint32_t mark;

	if (!shard)
		return 0;
	mark = slot->mark;
	pthread_mutex_unlock(&shard->lock);
	return mark;
}

void cmek_node_clear_mark(struct cmek_node_table *t, uint64_t number, uint32_t mark)
{
	struct slot *slot;
	struct shard *shard = lock_node(t, number, &slot);
	bool cleared;

	if (!shard)
		return;
	cleared = mark && slot->mark == mark;
	if (cleared) {
		slot->mark = 0;
		__atomic_fetch_sub(&t->n_marked, 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&shard->lock);
	if (cleared)
		drop(t, number, 0, 1);
}

uint32_t cmek_node_n_marked(struct cmek_node_table *t)
{
	return __atomic_load_n(&t->n_marked, __ATOMIC_RELAXED);
}

uint64_t cmek_node_next_marked(struct cmek_node_table *t, uint64_t *index, uint32_t *ret_mark)
{
	uint64_t n = __atomic_load_n(&t->n_used, __ATOMIC_ACQUIRE);

	if (*index < ROOT_INDEX)
		*index = ROOT_INDEX;
	while (*index < n) {
		uint64_t i = (*index)++;
		uint64_t number = i | (uint64_t)__atomic_load_n(&t->slots[i].generation, __ATOMIC_RELAXED) << 32;

		*ret_mark = cmek_node_mark_of(t, number);
		if (*ret_mark)
			return number;
	}
	return 0;
}

uint64_t cmek_node_next(struct cmek_node_table *t, uint64_t *index)
{
	uint64_t n = __atomic_load_n(&t->n_used, __ATOMIC_ACQUIRE);
	struct shard *shard;
	struct slot *slot;
	bool known;

	if (*index < ROOT_INDEX)
		*index = ROOT_INDEX;
	while (*index < n) {
		uint64_t i = (*index)++;
		uint64_t number = i | (uint64_t)__atomic_load_n(&t->slots[i].generation, __ATOMIC_RELAXED) << 32;

		shard = lock_node(t, number, &slot);
		if (!shard)
			continue;
		known = slot->n_lookups > 0 || i == ROOT_INDEX;
		pthread_mutex_unlock(&shard->lock);
		if (known)
			return number;
	}
	return 0;
}
