/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Memory for key bytes: locked, left out of dumps, wiped when freed, and typed by purpose. Knows nothing of what a key
 * opens. Keys are many and small (one or two for each open file) while locked memory is scarce (RLIMIT_MEMLOCK is
 * 8 MiB for ordinary users), so they share pages: a slab is a run of pages cut into slots of one size. Only bytes lie
 * in locked pages; what describes them is on the ordinary heap.
 */
#include "config.h"

#include "base/secret.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/crypto.h"
#include "base/log.h"

#define SLAB_BYTES 16384
#define SLOT_BYTES_MIN 32
#define SLOTS_MAX (SLAB_BYTES / SLOT_BYTES_MIN)

/* Slot sizes: nearly all keys are 32 or 64 bytes. Anything larger has pages of its own. */
static const size_t slot_sizes[] = { SLOT_BYTES_MIN, 64 };
#define N_CLASSES (sizeof(slot_sizes) / sizeof(slot_sizes[0]))

/* Locked pages between two inaccessible ones, so that no overrun of a neighbour reaches into keys. */
struct pages {
	uint8_t *bytes;
	size_t len; /* a multiple of the page size, guards not counted */
};

struct slab {
	struct pages pages;
	struct slab *prev, *next; /* in arena.slabs[class] */
	size_t class;
	unsigned n_slots, n_used;
	uint64_t used[SLOTS_MAX / 64]; /* a bit for each slot */
};

struct cmek_secret {
	atomic_uint refs;
	enum cmek_purpose purpose;
	size_t len;
	uint64_t serial;
	uint8_t *bytes;
	struct slab *slab;  /* owner of bytes, or NULL: */
	struct pages pages; /* they are the secret's own */
	struct cmek_secret *prev, *next; /* in arena.large, when the pages are its own */
};

/* The lock guards every field, and the fields of every slab. Slabs with room come before full ones in their list. */
static struct {
	pthread_mutex_t lock;
	struct slab *slabs[N_CLASSES];
	struct cmek_secret *large;
	int relock_errnum; /* why a fork's child could not lock what it inherited; 0 = it could, or is none */
} arena = { .lock = PTHREAD_MUTEX_INITIALIZER };

static atomic_uint_fast64_t last_serial;
static atomic_bool unlocked_allowed;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

void cmek_wipe(void *p, size_t n)
{
	if (n > 0)
		explicit_bzero(p, n);
}

void cmek_secret_allow_unlocked(void)
{
	atomic_store(&unlocked_allowed, true);
}

int cmek_secret_harden_process(void)
{
	const struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &none))
		return -errno;
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		return -errno;
	return 0;
}

/* ---- pages ---- */

static size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

static int lock_failed(int errnum, struct cmek_error *err)
{
	struct rlimit limit = { 0, 0 };

	if (errnum == EAGAIN) /* what mlock says where it means "over the limit" on some kernels */
		errnum = ENOMEM;
	if (errnum != ENOMEM && errnum != EPERM)
		return cmek_error_sys(err, errnum, "can't lock memory for keys");
	if (getrlimit(RLIMIT_MEMLOCK, &limit))
		return cmek_error_set(err, CMEK_E_LIMIT, errnum, "can't lock memory for keys");
	return cmek_error_set(err, CMEK_E_LIMIT, errnum,
			      "can't lock memory for keys: the limit (RLIMIT_MEMLOCK) is %llu KiB",
			      (unsigned long long)limit.rlim_cur / 1024);
}

static int pages_map(size_t min_len, struct pages *ret_pages, struct cmek_error *err)
{
	size_t page = page_size();
	size_t len = (min_len + page - 1) / page * page;
	uint8_t *map;
	int ret;

	map = mmap(NULL, len + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		return cmek_error_sys(err, errno, "can't get memory for keys");
	if (mprotect(map + page, len, PROT_READ | PROT_WRITE) || madvise(map + page, len, MADV_DONTDUMP)) {
		ret = cmek_error_sys(err, errno, "can't get memory for keys");
		goto out;
	}
	if (mlock(map + page, len) && !atomic_load(&unlocked_allowed)) {
		ret = lock_failed(errno, err);
		goto out;
	}
	ret_pages->bytes = map + page;
	ret_pages->len = len;
	map = NULL;
	ret = 0;
out:
	if (map)
		munmap(map, len + 2 * page);
	return ret;
}

/* The bytes are wiped already. */
static void pages_unmap(const struct pages *pages)
{
	size_t page = page_size();

	if (munmap(pages->bytes - page, pages->len + 2 * page))
		abort(); /* only if the arena's own bookkeeping is broken */
}

/* ---- fork ---- */

/*
 * A child has copies of all secrets, but locks are not inherited. Where they can't be taken again the child gets no
 * new secrets; it may be a child that only runs another program, so this is not the place to give up.
 */
static void relock(const struct pages *pages)
{
	if (mlock(pages->bytes, pages->len) && !atomic_load(&unlocked_allowed))
		arena.relock_errnum = errno;
}

static void before_fork(void)
{
	pthread_mutex_lock(&arena.lock);
}

static void after_fork_in_parent(void)
{
	pthread_mutex_unlock(&arena.lock);
}

static void after_fork_in_child(void)
{
	const struct cmek_secret *s;
	const struct slab *slab;
	size_t i;

	for (i = 0; i < N_CLASSES; i++)
		for (slab = arena.slabs[i]; slab; slab = slab->next)
			relock(&slab->pages);
	for (s = arena.large; s; s = s->next)
		relock(&s->pages);
	pthread_mutex_unlock(&arena.lock);
}

static void register_fork_handlers(void)
{
	if (pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child))
		abort(); /* no memory for three pointers */
}

/* ---- slots ---- */

static void slab_unlink_locked(struct slab *slab)
{
	if (slab->prev)
		slab->prev->next = slab->next;
	else
		arena.slabs[slab->class] = slab->next;
	if (slab->next)
		slab->next->prev = slab->prev;
	slab->prev = NULL;
	slab->next = NULL;
}

static void slab_link_first_locked(struct slab *slab)
{
	slab->next = arena.slabs[slab->class];
	if (slab->next)
		slab->next->prev = slab;
	arena.slabs[slab->class] = slab;
}

/* `after` is in the list, slab is not. */
static void slab_link_after_locked(struct slab *slab, struct slab *after)
{
	slab->prev = after;
	slab->next = after->next;
	if (slab->next)
		slab->next->prev = slab;
	after->next = slab;
}

static int slab_new_locked(size_t class, struct slab **ret_slab, struct cmek_error *err)
{
	struct slab *slab = calloc(1, sizeof(*slab));
	int ret;

	if (!slab)
		return cmek_error_sys(err, ENOMEM, "can't get memory for keys");
	ret = pages_map(SLAB_BYTES, &slab->pages, err);
	if (ret) {
		free(slab);
		return ret;
	}
	slab->class = class;
	slab->n_slots = (unsigned)(SLAB_BYTES / slot_sizes[class]); /* where pages are larger, the rest is not used */
	slab_link_first_locked(slab);
	*ret_slab = slab;
	return 0;
}

static unsigned free_slot_locked(const struct slab *slab)
{
	unsigned word = 0;

	while (slab->used[word] == UINT64_MAX)
		word++;
	return word * 64 + (unsigned)__builtin_ctzll(~slab->used[word]);
}

static int slot_take_locked(size_t class, struct cmek_secret *s, struct cmek_error *err)
{
	struct slab *slab = arena.slabs[class], *last;
	unsigned slot;
	int ret;

	if (!slab || slab->n_used == slab->n_slots) {
		ret = slab_new_locked(class, &slab, err);
		if (ret)
			return ret;
	}
	slot = free_slot_locked(slab);
	assert(slot < slab->n_slots);
	slab->used[slot / 64] |= UINT64_C(1) << slot % 64;
	slab->n_used++;
	if (slab->n_used == slab->n_slots && slab->next && slab->next->n_used < slab->next->n_slots) {
		/* Full: behind those with room. Such a walk happens once in n_slots allocations. */
		for (last = slab->next; last->next; last = last->next)
			;
		slab_unlink_locked(slab);
		slab_link_after_locked(slab, last);
	}
	s->slab = slab;
	s->bytes = slab->pages.bytes + slot * slot_sizes[class];
	return 0;
}

/*
 * The bytes are wiped already. An empty slab is given back when another of its class has room: one that is the only one
 * with room stays, or a key that comes and goes would map and unmap pages each time.
 */
static void slot_give_locked(struct cmek_secret *s)
{
	struct slab *slab = s->slab, *other;
	unsigned slot = (unsigned)((size_t)(s->bytes - slab->pages.bytes) / slot_sizes[slab->class]);

	assert(slab->used[slot / 64] >> slot % 64 & 1);
	slab->used[slot / 64] &= ~(UINT64_C(1) << slot % 64);
	if (slab->n_used-- == slab->n_slots) {
		slab_unlink_locked(slab);
		slab_link_first_locked(slab);
	}
	other = arena.slabs[slab->class] == slab ? slab->next : arena.slabs[slab->class];
	if (slab->n_used == 0 && other && other->n_used < other->n_slots) {
		slab_unlink_locked(slab);
		pages_unmap(&slab->pages);
		free(slab);
	}
}

static void large_link_locked(struct cmek_secret *s)
{
	s->next = arena.large;
	if (s->next)
		s->next->prev = s;
	arena.large = s;
}

static void large_unlink_locked(struct cmek_secret *s)
{
	if (s->prev)
		s->prev->next = s->next;
	else
		arena.large = s->next;
	if (s->next)
		s->next->prev = s->prev;
}

/* ---- secrets ---- */

static int place_locked(size_t size, struct cmek_secret *s, struct cmek_error *err)
{
	size_t class;
	int ret;

	if (arena.relock_errnum)
		return lock_failed(arena.relock_errnum, err);
	for (class = 0; class < N_CLASSES; class++)
		if (size <= slot_sizes[class])
			return slot_take_locked(class, s, err);
	ret = pages_map(size, &s->pages, err);
	if (ret)
		return ret;
	s->bytes = s->pages.bytes;
	large_link_locked(s);
	return 0;
}

int cmek_secret_new(enum cmek_purpose purpose, size_t len, struct cmek_secret **ret_secret, struct cmek_error *err)
{
	struct cmek_secret *s;
	int ret;

	if (len == 0 || len > CMEK_SECRET_MAX)
		return cmek_error_set(err, CMEK_E_LIMIT, EINVAL, "a secret of %zu bytes (1 to %u are possible)", len,
				      CMEK_SECRET_MAX);
	pthread_once(&fork_once, register_fork_handlers);
	s = calloc(1, sizeof(*s));
	if (!s)
		return cmek_error_sys(err, ENOMEM, "can't get memory for keys");
	pthread_mutex_lock(&arena.lock);
	/* Fresh pages and freed slots are zero, so the NUL behind a text is there already. */
	ret = place_locked(len + (purpose == CMEK_KEY_TEXT), s, err);
	pthread_mutex_unlock(&arena.lock);
	if (ret) {
		free(s);
		return ret;
	}
	atomic_init(&s->refs, 1);
	s->purpose = purpose;
	s->len = len;
	s->serial = atomic_fetch_add(&last_serial, 1) + 1;
	*ret_secret = s;
	return 0;
}

int cmek_secret_new_random(enum cmek_purpose purpose, size_t len, struct cmek_secret **ret_secret,
			   struct cmek_error *err)
{
	int ret = cmek_secret_new(purpose, len, ret_secret, err);

	if (!ret)
		cmek_random((*ret_secret)->bytes, len);
	return ret;
}

int cmek_secret_new_copy(enum cmek_purpose purpose, const void *bytes, size_t len, struct cmek_secret **ret_secret,
			 struct cmek_error *err)
{
	int ret = cmek_secret_new(purpose, len, ret_secret, err);

	if (!ret)
		memcpy((*ret_secret)->bytes, bytes, len);
	return ret;
}

struct cmek_secret *cmek_secret_ref(struct cmek_secret *s)
{
	if (s)
		atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void cmek_secret_free(struct cmek_secret *s)
{
	if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
		return;
	cmek_crypto_forget(s->serial);
	cmek_wipe(s->bytes, s->len);
	pthread_mutex_lock(&arena.lock);
	if (s->slab) {
		slot_give_locked(s);
	} else {
		large_unlink_locked(s);
		pages_unmap(&s->pages);
	}
	pthread_mutex_unlock(&arena.lock);
	free(s);
}

static void check_purpose(const struct cmek_secret *s, enum cmek_purpose purpose)
{
	if (s->purpose == purpose)
		return;
	cmek_log(CMEK_LOG_ERROR, "internal error: a key made for purpose %d was about to be used for %d",
		 (int)s->purpose, (int)purpose);
	abort();
}

const uint8_t *cmek_secret_bytes(const struct cmek_secret *s, enum cmek_purpose purpose)
{
	check_purpose(s, purpose);
	return s->bytes;
}

uint8_t *cmek_secret_fill(struct cmek_secret *s, enum cmek_purpose purpose)
{
	check_purpose(s, purpose);
	return s->bytes;
}

size_t cmek_secret_len(const struct cmek_secret *s)
{
	return s->len;
}

uint64_t cmek_secret_serial(const struct cmek_secret *s)
{
	return s->serial;
}
