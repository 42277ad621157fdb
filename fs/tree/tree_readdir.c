/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Directory listing without open state. A listing is resumed by the store's own cookie; a few streams (a descriptor
 * and what was read ahead) are kept between calls, because the kernel asks for some twenty entries at a time and the
 * store gives hundreds. A stream belongs to one call while it is used, so listings of one directory run in parallel.
 *
 * Which listing a stream was made for is not known. What has changed in the directory is read anew only if another listing
 * has begun since, which must see it. The others need not, and on btrfs a seek moves the end of the listing to what came
 * last: who renames as they list would never get there.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fs/tree/tree_impl.h"

#define MAX_STREAMS 32
#define BUF_BYTES 32768
#define STRIPES 256
/* A listing that was begun and not asked for any more for so long has been given up. */
#define GIVEN_UP_MS 60000
/* Where there is always one, for so long, nobody waits any more. */
#define PATIENCE_MS 600000

struct stream {
	uint64_t node;
	int fd;
	bool sought;             /* fd stands where the buffer ends */
	uint32_t version;        /* of the directory when the buffer was filled */
	uint32_t sought_version; /* of the directory when fd was opened, or moved */
	unsigned sought_begun;   /* the stripe's n_ever_begun then */
	uint64_t off;            /* cookie behind the last entry that was emitted, which the next call begins from */
	size_t pos, len;
	char buf[BUF_BYTES] __attribute__((aligned(8)));
};

/* Listings of the directories of one stripe. Shared: an answer is being filled; exclusive: names move to another data key. */
struct stripe {
	pthread_rwlock_t lock;
	atomic_uint n_begun; /* an estimate: it is known when one begins and ends, but not when it is given up */
	atomic_uint n_ever_begun; /* listings that began, and moves that ended */
	_Atomic(uint64_t) first_ms, last_ms; /* when the first of them began, and the last one was asked for */
};

struct cmek_tree_streams {
	struct stripe stripes[STRIPES];
	pthread_mutex_t lock;
	struct stream *idle[MAX_STREAMS]; /* the one used longest ago first */
	unsigned n;
};

/* What one call of cmek_tree_readdir() works on. */
struct listing {
	struct cmek_tree *tree;
	struct stripe *stripe;
	struct cmek_tree_dir dir;
	struct cmek_tree_place place; /* its dir is a copy of dir; for the entry at hand */
	bool plus;
	bool stale; /* the directory has changed since the stream's buffer was filled */
	cmek_emit_fn emit;
	void *arg;
	unsigned n_bad;
	unsigned n_emitted;
};

/* Streams */

static void stream_free(struct stream *s)
{
	if (s && s->fd >= 0)
		close(s->fd);
	free(s);
}

int cmek_tree_streams_new(struct cmek_tree_streams **ret_streams)
{
	struct cmek_tree_streams *streams = calloc(1, sizeof *streams);
	unsigned i;

	if (!streams)
		return -ENOMEM;
	for (i = 0; i < STRIPES; i++)
		pthread_rwlock_init(&streams->stripes[i].lock, NULL);
	pthread_mutex_init(&streams->lock, NULL);
	*ret_streams = streams;
	return 0;
}

void cmek_tree_streams_free(struct cmek_tree_streams *streams)
{
	unsigned i;

	if (!streams)
		return;
	for (i = 0; i < STRIPES; i++)
		pthread_rwlock_destroy(&streams->stripes[i].lock);
	while (streams->n)
		stream_free(streams->idle[--streams->n]);
	pthread_mutex_destroy(&streams->lock);
	free(streams);
}

static struct stream *take_at_locked(struct cmek_tree_streams *streams, unsigned i)
{
	struct stream *s = streams->idle[i];

	streams->n--;
	memmove(&streams->idle[i], &streams->idle[i + 1], (streams->n - i) * sizeof streams->idle[0]);
	return s;
}

void cmek_tree_streams_drop(struct cmek_tree_streams *streams, uint64_t node)
{
	struct stream *dropped[MAX_STREAMS];
	unsigned i, n = 0;

	pthread_mutex_lock(&streams->lock);
	for (i = streams->n; i > 0; i--) {
		if (streams->idle[i - 1]->node == node)
			dropped[n++] = take_at_locked(streams, i - 1);
	}
	pthread_mutex_unlock(&streams->lock);
	while (n)
		stream_free(dropped[--n]);
}

static uint32_t dir_version(const struct listing *l)
{
	return cmek_tree_dir_version(l->tree, &l->dir.fd.node.key);
}

/* Before fd is opened or moved. */
static void note_sought(const struct listing *l, struct stream *s)
{
	s->sought_begun = atomic_load(&l->stripe->n_ever_begun);
	s->sought_version = dir_version(l);
}

static void stream_resume(struct listing *l, struct stream *s)
{
	uint32_t version = dir_version(l);

	if (s->sought_version != version && s->sought_begun != atomic_load(&l->stripe->n_ever_begun)) {
		s->pos = s->len = 0;
		s->sought = false;
	}
	l->stale = s->version != version;
}

static int stream_get(struct listing *l, uint64_t off, struct stream **ret_stream)
{
	struct cmek_tree_streams *streams = l->tree->streams;
	uint64_t node = l->dir.fd.node.number;
	struct stream *s = NULL;
	unsigned i;

	if (off == 0)
		atomic_fetch_add(&l->stripe->n_ever_begun, 1);
	pthread_mutex_lock(&streams->lock);
	for (i = streams->n; i > 0 && off && !s; i--) {
		if (streams->idle[i - 1]->node == node && streams->idle[i - 1]->off == off)
			s = take_at_locked(streams, i - 1);
	}
	pthread_mutex_unlock(&streams->lock);
	if (!s) {
		s = malloc(sizeof *s);
		if (!s)
			return -ENOMEM;
		s->node = node;
		s->pos = s->len = 0;
		s->off = off;
		s->sought = off == 0;
		s->version = 0;
		note_sought(l, s);
		s->fd = cmek_tree_open_at(l->tree, l->dir.fd.fd, ".", O_RDONLY | O_DIRECTORY);
		if (s->fd < 0) {
			int r = s->fd;

			free(s);
			return r;
		}
	} else {
		stream_resume(l, s);
	}
	*ret_stream = s;
	return 0;
}

static void stream_put(struct cmek_tree *tree, struct stream *s)
{
	struct cmek_tree_streams *streams = tree->streams;
	struct stream *victim = NULL;

	if (s->fd >= tree->fds.keep_end) {
		stream_free(s);
		return;
	}
	pthread_mutex_lock(&streams->lock);
	if (streams->n == MAX_STREAMS)
		victim = take_at_locked(streams, 0);
	streams->idle[streams->n++] = s;
	pthread_mutex_unlock(&streams->lock);
	stream_free(victim);
}

/* 1: there is a record; 0: the end; -errno. */
static int stream_fill(struct listing *l, struct stream *s)
{
	ssize_t n;
	int r;

	if (s->pos < s->len)
		return 1;
	if (!s->sought) {
		note_sought(l, s);
		r = cmek_store_seek(s->fd, s->off);
		if (r)
			return r;
		s->sought = true;
	}
	s->version = dir_version(l);
	l->stale = false;
	n = cmek_store_getdents(s->fd, s->buf, sizeof s->buf);
	s->pos = 0;
	s->len = n > 0 ? (size_t)n : 0;
	/* ENOENT: the directory was removed while it is known. */
	return n == -ENOENT ? 0 : n > 0 ? 1 : (int)n;
}

/* Listings and moving names */

static uint64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC_COARSE, &ts); /* can't fail */
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static struct stripe *stripe_of(struct cmek_tree *tree, const struct cmek_node_key *dir)
{
	return &tree->streams->stripes[cmek_tree_dir_stripe(dir, STRIPES)];
}

/* An answer from cookie `off` on was filled, up to the end of the directory or not. The kernel asks once more behind it. */
static void note_listing(struct stripe *stripe, uint64_t off, bool ended, unsigned n_emitted)
{
	unsigned n = atomic_load(&stripe->n_begun);

	if (!ended)
		atomic_store(&stripe->last_ms, now_ms());
	if (off == 0 && !ended && atomic_fetch_add(&stripe->n_begun, 1) == 0)
		atomic_store(&stripe->first_ms, now_ms());
	else if (off != 0 && ended && n_emitted > 0)
		while (n > 0 && !atomic_compare_exchange_weak(&stripe->n_begun, &n, n - 1))
			;
}

bool cmek_tree_listings_begin_move(struct cmek_tree *tree, const struct cmek_node_key *dir)
{
	struct stripe *stripe = stripe_of(tree, dir);

	pthread_rwlock_wrlock(&stripe->lock);
	if (atomic_load(&stripe->n_begun) == 0)
		return true;
	if (now_ms() - atomic_load(&stripe->last_ms) >= GIVEN_UP_MS ||
	    now_ms() - atomic_load(&stripe->first_ms) >= PATIENCE_MS) {
		atomic_store(&stripe->n_begun, 0);
		return true;
	}
	pthread_rwlock_unlock(&stripe->lock);
	return false;
}

void cmek_tree_listings_end_move(struct cmek_tree *tree, const struct cmek_node_key *dir)
{
	struct stripe *stripe = stripe_of(tree, dir);

	atomic_fetch_add(&stripe->n_ever_begun, 1); /* what was read ahead has names of before */
	pthread_rwlock_unlock(&stripe->lock);
}

/* Entries */

/* The stored form of a long entry, from its link. Returns its length. */
static ssize_t read_long_form(const struct listing *l, const char *entry, char form[CMEK_STORED_FORM_MAX + 2])
{
	char link[CMEK_LONG_HASH_LEN + 3];
	ssize_t n;
	int r;

	cmek_name_link_of(entry, link);
	n = cmek_store_readlink(l->dir.fd.fd, link, form, CMEK_STORED_FORM_MAX + 2);
	if (n < 0)
		return n;
	r = cmek_name_long_check(entry, form, (size_t)n);
	return r ? r : n;
}

static int decrypt_under(struct listing *l, uint16_t dek, const char *form, size_t len,
			 char ret_plain[CMEK_PLAIN_NAME_MAX + 1])
{
	struct cmek_secret *key = NULL;
	int r = cmek_keyring_name_key(l->tree->ring, dek, &key);

	if (r == 0)
		r = cmek_name_decrypt(key, l->dir.id.id, form, len, ret_plain);
	cmek_secret_free(key);
	return r;
}

/* -EBADMSG: not a name of this directory. */
static int decrypt_name(struct listing *l, const char *entry, bool is_long, char ret_plain[CMEK_PLAIN_NAME_MAX + 1])
{
	char form_buf[CMEK_STORED_FORM_MAX + 2];
	const char *form = entry;
	ssize_t n = (ssize_t)strlen(entry);
	int r;

	if (is_long) {
		n = read_long_form(l, entry, form_buf);
		if (n < 0)
			return -EBADMSG;
		form = form_buf;
	}
	r = decrypt_under(l, l->dir.id.dek, form, (size_t)n, ret_plain);
	if (r == -EBADMSG && l->dir.id.old_dek)
		r = decrypt_under(l, l->dir.id.old_dek, form, (size_t)n, ret_plain);
	return r;
}

static void lock_entry(struct listing *l, const char *entry, struct cmek_tree_locks *locks)
{
	memcpy(l->place.names[0].entry, entry, strlen(entry) + 1);
	cmek_tree_place_lock(locks, &l->place);
	cmek_tree_lock_names(l->tree, locks);
}

/*
 * A name that could not be decrypted. Its entry can have gone meanwhile, or its link, and both have come back since: so
 * again while nobody may change them, and what still fails is damage. -ENOENT: it has gone.
 */
static int decrypt_again(struct listing *l, const char *entry, bool is_long, char ret_plain[CMEK_PLAIN_NAME_MAX + 1])
{
	struct cmek_tree_locks locks = { 0 };
	struct cmek_store_stat st;
	int r;

	lock_entry(l, entry, &locks);
	r = cmek_store_stat(l->dir.fd.fd, entry, &st);
	if (r == 0)
		r = decrypt_name(l, entry, is_long, ret_plain);
	cmek_tree_unlock(l->tree, &locks);
	if (r == -EBADMSG)
		l->n_bad++;
	return r;
}

/* Node and attributes of an entry. -ENOENT: it has gone. Other failures leave it without them. */
static int look_closer(struct listing *l, const char *name, struct cmek_entry *entry)
{
	struct cmek_tree_locks locks = { 0 };
	struct cmek_store_stat st;
	struct cmek_entry found;
	int r;

	lock_entry(l, name, &locks);
	r = cmek_tree_place_find(l->tree, &l->place, &st);
	if (r == 0)
		r = cmek_tree_enter(l->tree, &l->place, -1, &st, &found);
	cmek_tree_unlock(l->tree, &locks);
	if (r == 0)
		*entry = found;
	return r;
}

/* The entry was read some time ago. -ENOENT: it has gone. Another may have come by the same name. */
static int look_again(const struct listing *l, const char *name, struct cmek_entry *entry)
{
	struct cmek_store_stat st;
	int r = cmek_store_stat(l->dir.fd.fd, name, &st);

	if (r == 0) {
		entry->st.st_ino = st.st.st_ino;
		entry->st.st_mode = st.st.st_mode & S_IFMT;
	}
	return r;
}

static int emit(struct listing *l, const char *plain, const struct cmek_entry *entry, uint64_t next_off)
{
	int r = l->emit(l->arg, plain, entry, next_off);

	if (r && entry->node)
		cmek_tree_forget(l->tree, entry->node, 1);
	if (r == 0)
		l->n_emitted++;
	return r ? 1 : 0;
}

static int emit_dot(struct listing *l, const struct dirent64 *d)
{
	struct cmek_entry entry;

	memset(&entry, 0, sizeof entry);
	entry.st.st_mode = S_IFDIR;
	/* What is above the store's root is nobody's business. */
	entry.st.st_ino = l->dir.fd.node.number == CMEK_NODE_ROOT ? l->dir.fd.node.key.ino : d->d_ino;
	return emit(l, d->d_name, &entry, (uint64_t)d->d_off);
}

/* 0: go on; 1: the buffer is full; -errno. */
static int emit_record(struct listing *l, const struct dirent64 *d)
{
	enum cmek_store_name_kind kind = cmek_name_kind(d->d_name);
	char plain[CMEK_PLAIN_NAME_MAX + 1];
	struct cmek_entry entry;
	int r;

	if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
		return emit_dot(l, d);
	if (kind != CMEK_STORE_NAME_SHORT && kind != CMEK_STORE_NAME_LONG)
		return 0;
	/* It was empty when this call began. */
	if (!l->dir.has_id) {
		r = cmek_tree_dir_load_id(l->tree, &l->dir, false);
		if (r || !l->dir.has_id)
			return r ? r : -ENOLINK;
	}
	r = decrypt_name(l, d->d_name, kind == CMEK_STORE_NAME_LONG, plain);
	if (r == -EBADMSG)
		r = decrypt_again(l, d->d_name, kind == CMEK_STORE_NAME_LONG, plain);
	if (r)
		return r == -EBADMSG || r == -ENOENT ? 0 : r;
	memset(&entry, 0, sizeof entry);
	entry.st.st_ino = d->d_ino;
	entry.st.st_mode = DTTOIF(d->d_type);
	if (l->stale && look_again(l, d->d_name, &entry) == -ENOENT)
		return 0;
	if (l->plus && look_closer(l, d->d_name, &entry) == -ENOENT)
		return 0;
	if (entry.st.st_mode == 0) {
		r = look_again(l, d->d_name, &entry);
		if (r) {
			l->n_bad += r != -ENOENT; /* it is there, and what it is nobody can tell */
			return 0;
		}
	}
	return emit(l, plain, &entry, (uint64_t)d->d_off);
}

/* noted: names must not move before the listing has ended. */
static int read_dir(struct cmek_tree *tree, uint64_t node, uint64_t off, bool plus, bool noted, cmek_emit_fn emit_fn, void *arg,
		    unsigned *ret_bad)
{
	struct listing l = { .tree = tree, .plus = plus, .emit = emit_fn, .arg = arg };
	struct stream *s = NULL;
	int r;

	r = cmek_tree_dir_get(tree, node, &l.dir);
	if (r)
		return r;
	l.stripe = stripe_of(tree, &l.dir.fd.node.key);
	pthread_rwlock_rdlock(&l.stripe->lock);
	r = cmek_tree_dir_load_id(tree, &l.dir, false);
	if (r == 0)
		r = stream_get(&l, off, &s);
	if (r)
		goto out;
	l.place.dir = l.dir;
	l.place.name = &l.place.names[0];
	l.place.n_names = 1;
	for (;;) {
		const struct dirent64 *d;
		unsigned n_emitted;

		r = stream_fill(&l, s);
		if (r <= 0)
			break;
		d = (const void *)(s->buf + s->pos);
		n_emitted = l.n_emitted;
		r = emit_record(&l, d);
		if (r)
			break;
		s->pos += d->d_reclen;
		if (l.n_emitted > n_emitted) /* what was passed over is nothing that a call could begin behind */
			s->off = (uint64_t)d->d_off;
	}
	if (noted)
		note_listing(l.stripe, off, r == 0, l.n_emitted);
	/* What has been listed counts; the error comes again with the next call. */
	r = r < 0 && l.n_emitted == 0 ? r : 0;
	if (r == 0)
		stream_put(tree, s);
	else
		stream_free(s);
	if (r == 0)
		*ret_bad = l.n_bad;
out:
	pthread_rwlock_unlock(&l.stripe->lock);
	cmek_tree_dir_put(tree, &l.dir);
	return r;
}

int cmek_tree_readdir(struct cmek_tree *tree, uint64_t node, uint64_t off, bool plus, cmek_emit_fn emit_fn, void *arg,
		      unsigned *ret_bad)
{
	return read_dir(tree, node, off, plus, true, emit_fn, arg, ret_bad);
}

int cmek_tree_walk_dir(struct cmek_tree *tree, uint64_t node, uint64_t off, cmek_emit_fn emit_fn, void *arg, unsigned *ret_bad)
{
	return read_dir(tree, node, off, true, false, emit_fn, arg, ret_bad);
}
