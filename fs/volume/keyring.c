/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The unlocked keys of one volume, and the one counter that makes every (key, nonce) pair of a mount unique.
 * Knows neither the header nor where the KEK came from, and does no I/O.
 */
#include "config.h"

#include "fs/volume/keyring.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/crypto.h"

#define KEK_LEN 32
#define DEK_LEN 32
#define WRAP_AAD_LEN 22
#define SESSION_MAX_SEALS (UINT64_C(1) << 32)
#define SESSION_MAX_SECONDS 3600

/* The DEK itself, and what is derived from it for as long as it is here. */
enum { KEY_ITSELF, KEY_NAME, KEY_SYMLINK, KEY_XATTR_NAME, N_KEYS };

/* In a ring, state and keys may change under its lock: whoever takes a key takes a reference under it. */
struct dek {
	uint16_t id;
	uint32_t domain;
	enum cmek_dek_state state;
	struct cmek_secret *keys[N_KEYS]; /* all NULL when it is retired or destroyed: it is refused, so it need not be in memory */
};

/*
 * Lives in a page that the kernel wipes in a forked child (MADV_WIPEONFORK), so that a child, however it was made and
 * whatever its pid, finds an all-zero salt and draws its own. All zero = draw at the next seal.
 */
struct session {
	uint8_t salt[CMEK_SALT_LEN];
};

/* Without the lock: id goes from 0 to a DEK's, once. */
struct dek_use {
	atomic_uint_fast16_t id;
	atomic_uint_fast64_t bytes;
};

struct cmek_keyring {
	struct dek_use uses[CMEK_DEK_USES_MAX];
	uint8_t volume[16];
	struct cmek_secret *kek;
	struct cmek_secret *wrap_key;
	struct cmek_secret *header_mac;

	pthread_mutex_t lock; /* guards all below */
	struct dek **deks;
	size_t n_deks;
	const struct dek *active;
	bool wiped;
	struct session *session;
	uint64_t session_start_s; /* CLOCK_BOOTTIME */
	uint64_t session_seals;
	uint64_t next_counter;
	uint64_t epoch; /* in ordinary memory, so that a forked child goes on from its parent's number */
};

static int derive(const struct cmek_secret *from, enum cmek_purpose from_purpose, const char *info, const void *salt,
		  enum cmek_purpose purpose, size_t len, struct cmek_secret **ret_key, struct cmek_error *err)
{
	return cmek_hkdf(from, from_purpose, salt, salt ? CMEK_SALT_LEN : 0, info, strlen(info), purpose, len, ret_key,
			 err);
}

/* A suspended machine's hours count as well, hence not CLOCK_MONOTONIC. */
static uint64_t now_s(void)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_BOOTTIME, &ts))
		abort();
	return (uint64_t)ts.tv_sec;
}

static int map_session(struct session **ret_session, struct cmek_error *err)
{
	size_t len = (size_t)sysconf(_SC_PAGESIZE);
	void *page = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int errnum;

	if (page == MAP_FAILED)
		return cmek_error_sys(err, errno, "memory for the session salt");
	if (madvise(page, len, MADV_WIPEONFORK)) {
		errnum = errno;
		(void)munmap(page, len); /* the first failure is the one to tell */
		return cmek_error_set(err, CMEK_E_UNSUPPORTED, errnum,
				      "the kernel can't wipe memory on fork (MADV_WIPEONFORK needs Linux 4.14)");
	}
	*ret_session = page;
	return 0;
}

int cmek_keyring_new(const uint8_t volume[16], struct cmek_secret **kek, struct cmek_keyring **ret_ring,
		     struct cmek_error *err)
{
	struct cmek_keyring *ring;
	int ret;

	assert(cmek_secret_len(*kek) == KEK_LEN);
	ring = calloc(1, sizeof(*ring));
	if (!ring)
		return cmek_error_sys(err, ENOMEM, "keyring");
	pthread_mutex_init(&ring->lock, NULL);
	memcpy(ring->volume, volume, 16);
	ring->next_counter = 1;
	ret = map_session(&ring->session, err);
	if (!ret)
		ret = derive(*kek, CMEK_KEY_KEK, "cmekfs 1 wrap", NULL, CMEK_KEY_WRAP, 32, &ring->wrap_key, err);
	if (!ret)
		ret = derive(*kek, CMEK_KEY_KEK, "cmekfs 1 header mac", NULL, CMEK_KEY_HEADER_MAC, 32,
			     &ring->header_mac, err);
	if (ret) {
		cmek_keyring_free(ring);
		return ret;
	}
	ring->kek = *kek;
	*kek = NULL;
	*ret_ring = ring;
	return 0;
}

static void free_dek_keys(struct cmek_secret *keys[N_KEYS])
{
	size_t i;

	for (i = 0; i < N_KEYS; i++) {
		cmek_secret_free(keys[i]);
		keys[i] = NULL;
	}
}

static void free_dek(struct dek *dek)
{
	if (!dek)
		return;
	free_dek_keys(dek->keys);
	free(dek);
}

/* Everything but the ring itself, its session and its lock. */
static void free_keys(struct cmek_keyring *ring)
{
	size_t i;

	for (i = 0; i < ring->n_deks; i++)
		free_dek(ring->deks[i]);
	free(ring->deks);
	cmek_secret_free(ring->header_mac);
	cmek_secret_free(ring->wrap_key);
	cmek_secret_free(ring->kek);
	ring->deks = NULL;
	ring->n_deks = 0;
	ring->active = NULL;
	ring->header_mac = ring->wrap_key = ring->kek = NULL;
}

void cmek_keyring_free(struct cmek_keyring *ring)
{
	if (!ring)
		return;
	free_keys(ring);
	if (ring->session)
		(void)munmap(ring->session, (size_t)sysconf(_SC_PAGESIZE)); /* our own mapping: can't fail */
	pthread_mutex_destroy(&ring->lock);
	free(ring);
}

void cmek_keyring_wipe(struct cmek_keyring *ring)
{
	pthread_mutex_lock(&ring->lock);
	free_keys(ring);
	memset(ring->session->salt, 0, CMEK_SALT_LEN);
	ring->wiped = true;
	ring->epoch++; /* keys that somebody cached by it are not to be used any more */
	pthread_mutex_unlock(&ring->lock);
}

void cmek_keyring_refill(struct cmek_keyring *ring, struct cmek_keyring **fresh)
{
	struct cmek_keyring *from = *fresh;

	assert(ring->wiped && !memcmp(ring->volume, from->volume, sizeof(ring->volume)));
	pthread_mutex_lock(&ring->lock);
	ring->kek = from->kek;
	ring->wrap_key = from->wrap_key;
	ring->header_mac = from->header_mac;
	ring->deks = from->deks;
	ring->n_deks = from->n_deks;
	ring->active = from->active;
	ring->wiped = false;
	pthread_mutex_unlock(&ring->lock);
	from->kek = from->wrap_key = from->header_mac = NULL;
	from->deks = NULL;
	from->n_deks = 0;
	cmek_keyring_free(from);
	*fresh = NULL;
}

const struct cmek_secret *cmek_keyring_kek(const struct cmek_keyring *ring)
{
	return ring->kek;
}

const struct cmek_secret *cmek_keyring_header_mac(const struct cmek_keyring *ring)
{
	return ring->header_mac;
}

static struct dek *find_locked(const struct cmek_keyring *ring, uint16_t id)
{
	size_t i;

	for (i = 0; i < ring->n_deks; i++)
		if (ring->deks[i]->id == id)
			return ring->deks[i];
	return NULL;
}

static int derive_dek_keys(struct cmek_secret *keys[N_KEYS], struct cmek_error *err)
{
	const struct cmek_secret *key = keys[KEY_ITSELF];
	int ret;

	ret = derive(key, CMEK_KEY_DEK, "cmekfs 1 name", NULL, CMEK_KEY_NAME, 64, &keys[KEY_NAME], err);
	if (!ret)
		ret = derive(key, CMEK_KEY_DEK, "cmekfs 1 symlink", NULL, CMEK_KEY_SYMLINK, 64, &keys[KEY_SYMLINK], err);
	if (!ret)
		ret = derive(key, CMEK_KEY_DEK, "cmekfs 1 xattr name", NULL, CMEK_KEY_XATTR_NAME, 32, &keys[KEY_XATTR_NAME],
			     err);
	return ret;
}

/* Derives what the DEK's state lets it be used for and links it into the ring. Takes over *key, may be NULL. */
static int insert(struct cmek_keyring *ring, uint16_t id, uint32_t domain, enum cmek_dek_state state,
		  struct cmek_secret **key, struct cmek_error *err)
{
	struct dek *dek = calloc(1, sizeof(*dek)), **grown;
	int ret;

	if (!dek)
		return cmek_error_sys(err, ENOMEM, "DEK %u", id);
	dek->id = id;
	dek->domain = domain;
	dek->state = state;
	if (state == CMEK_DEK_ACTIVE || state == CMEK_DEK_DECRYPT_ONLY) {
		dek->keys[KEY_ITSELF] = *key;
		*key = NULL;
		ret = derive_dek_keys(dek->keys, err);
		if (ret) {
			free_dek(dek);
			return ret;
		}
	}

	pthread_mutex_lock(&ring->lock);
	if (find_locked(ring, id)) {
		ret = cmek_error_set(err, CMEK_E_BAD_FORMAT, EEXIST, "two DEKs with id %u", id);
		goto out;
	}
	if (state == CMEK_DEK_ACTIVE && ring->active) {
		ret = cmek_error_set(err, CMEK_E_BAD_FORMAT, EEXIST, "DEK %u and DEK %u are both active",
				     ring->active->id, id);
		goto out;
	}
	grown = reallocarray(ring->deks, ring->n_deks + 1, sizeof(*grown));
	if (!grown) {
		ret = cmek_error_sys(err, ENOMEM, "DEK %u", id);
		goto out;
	}
	ring->deks = grown;
	ring->deks[ring->n_deks++] = dek;
	if (state == CMEK_DEK_ACTIVE)
		ring->active = dek;
	dek = NULL;
	ret = 0;
out:
	pthread_mutex_unlock(&ring->lock);
	free_dek(dek);
	return ret;
}

static void wrap_aad(const struct cmek_keyring *ring, uint16_t id, uint32_t domain, uint8_t aad[WRAP_AAD_LEN])
{
	memcpy(aad, ring->volume, 16);
	cmek_store16(aad + 16, id);
	cmek_store32(aad + 18, domain);
}

static int seal_dek(const struct cmek_keyring *ring, uint16_t id, uint32_t domain, const struct cmek_secret *key,
		    uint8_t wrapped[CMEK_DEK_WRAPPED_LEN], struct cmek_error *err)
{
	uint8_t form[CMEK_DEK_WRAPPED_LEN], aad[WRAP_AAD_LEN];
	struct iovec iov = { aad, sizeof(aad) };
	int ret;

	wrap_aad(ring, id, domain, aad);
	cmek_random(form, CMEK_NONCE_LEN);
	ret = cmek_gcm_seal(ring->wrap_key, CMEK_KEY_WRAP, form, &iov, 1, cmek_secret_bytes(key, CMEK_KEY_DEK), DEK_LEN,
			    form + CMEK_NONCE_LEN, form + CMEK_NONCE_LEN + DEK_LEN);
	if (ret)
		return cmek_error_set(err, CMEK_E_SYSTEM, -ret, "DEK %u can't be wrapped", id);
	memcpy(wrapped, form, sizeof(form));
	return 0;
}

static int open_dek(const struct cmek_keyring *ring, uint16_t id, uint32_t domain,
		    const uint8_t wrapped[CMEK_DEK_WRAPPED_LEN], struct cmek_secret **ret_key, struct cmek_error *err)
{
	uint8_t aad[WRAP_AAD_LEN];
	struct iovec iov = { aad, sizeof(aad) };
	struct cmek_secret *key = NULL;
	int ret = cmek_secret_new(CMEK_KEY_DEK, DEK_LEN, &key, err);

	if (ret)
		return ret;
	wrap_aad(ring, id, domain, aad);
	ret = cmek_gcm_open(ring->wrap_key, CMEK_KEY_WRAP, wrapped, &iov, 1, wrapped + CMEK_NONCE_LEN, DEK_LEN,
			    cmek_secret_fill(key, CMEK_KEY_DEK), wrapped + CMEK_NONCE_LEN + DEK_LEN);
	if (!ret) {
		*ret_key = key;
		return 0;
	}
	cmek_secret_free(key);
	if (ret == -EBADMSG)
		return cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG, "DEK %u does not open with this volume's KEK", id);
	return cmek_error_set(err, CMEK_E_SYSTEM, -ret, "DEK %u can't be unwrapped", id);
}

int cmek_keyring_make_dek(struct cmek_keyring *ring, uint16_t id, uint32_t domain, enum cmek_dek_state state,
			  uint8_t wrapped[CMEK_DEK_WRAPPED_LEN], struct cmek_error *err)
{
	uint8_t form[CMEK_DEK_WRAPPED_LEN];
	struct cmek_secret *key = NULL;
	int ret;

	assert(id != 0);
	ret = cmek_secret_new_random(CMEK_KEY_DEK, DEK_LEN, &key, err);
	if (!ret)
		ret = seal_dek(ring, id, domain, key, form, err);
	if (!ret)
		ret = insert(ring, id, domain, state, &key, err);
	if (!ret)
		memcpy(wrapped, form, sizeof(form));
	cmek_secret_free(key);
	return ret;
}

int cmek_keyring_add_dek(struct cmek_keyring *ring, uint16_t id, uint32_t domain, enum cmek_dek_state state,
			 const uint8_t wrapped[CMEK_DEK_WRAPPED_LEN], struct cmek_error *err)
{
	struct cmek_secret *key = NULL;
	int ret = 0;

	assert(id != 0);
	if (state != CMEK_DEK_DESTROYED)
		ret = open_dek(ring, id, domain, wrapped, &key, err);
	if (!ret)
		ret = insert(ring, id, domain, state, &key, err);
	cmek_secret_free(key);
	return ret;
}

int cmek_keyring_rewrap_dek(const struct cmek_keyring *from, const struct cmek_keyring *to, uint16_t id,
			    uint32_t domain, const uint8_t wrapped[CMEK_DEK_WRAPPED_LEN],
			    uint8_t ret_wrapped[CMEK_DEK_WRAPPED_LEN], struct cmek_error *err)
{
	struct cmek_secret *key = NULL;
	int ret = open_dek(from, id, domain, wrapped, &key, err);

	if (!ret)
		ret = seal_dek(to, id, domain, key, ret_wrapped, err);
	cmek_secret_free(key);
	return ret;
}

/* Whether every DEK that both have is the same key. */
static bool same_deks_locked(const struct cmek_keyring *ring, const struct cmek_keyring *from)
{
	const struct cmek_secret *key, *other;
	const struct dek *mine;
	size_t i;

	for (i = 0; i < from->n_deks; i++) {
		mine = find_locked(ring, from->deks[i]->id);
		key = mine ? mine->keys[KEY_ITSELF] : NULL;
		other = from->deks[i]->keys[KEY_ITSELF];
		if (key && other &&
		    !cmek_equal(cmek_secret_bytes(key, CMEK_KEY_DEK), cmek_secret_bytes(other, CMEK_KEY_DEK), DEK_LEN))
			return false;
	}
	return true;
}

static void swap_secrets(struct cmek_secret **a, struct cmek_secret **b)
{
	struct cmek_secret *kept = *a;

	*a = *b;
	*b = kept;
}

/* *mine becomes what *from is. Keys that both have are the same, and others may have cached ciphers by those of *mine. */
static void merge(struct dek *mine, struct dek *from)
{
	size_t i;

	for (i = 0; i < N_KEYS; i++)
		if (!mine->keys[i] || !from->keys[i])
			swap_secrets(&mine->keys[i], &from->keys[i]);
	mine->state = from->state;
}

/* Moves the DEKs that are new here, and their KEK; what is left of *from is for cmek_keyring_free(). */
static void move_locked(struct cmek_keyring *ring, struct cmek_keyring *from)
{
	struct dek *mine;
	size_t i;

	for (i = 0; i < from->n_deks; i++) {
		mine = find_locked(ring, from->deks[i]->id);
		if (!mine) {
			ring->deks[ring->n_deks++] = from->deks[i];
			from->deks[i] = NULL;
		} else {
			merge(mine, from->deks[i]);
		}
	}
	ring->active = find_locked(ring, from->active->id);
	swap_secrets(&ring->kek, &from->kek);
	swap_secrets(&ring->wrap_key, &from->wrap_key);
	swap_secrets(&ring->header_mac, &from->header_mac);
	memset(ring->session->salt, 0, CMEK_SALT_LEN);
}

int cmek_keyring_adopt(struct cmek_keyring *ring, struct cmek_keyring **from, struct cmek_error *err)
{
	struct dek **grown;
	int ret = 0;

	pthread_mutex_lock(&ring->lock);
	grown = reallocarray(ring->deks, ring->n_deks + (*from)->n_deks, sizeof(*grown));
	if (!grown) {
		ret = cmek_error_sys(err, ENOMEM, "data keys");
		goto out;
	}
	ring->deks = grown;
	if (memcmp(ring->volume, (*from)->volume, sizeof(ring->volume)) || !(*from)->active ||
	    (ring->active && !find_locked(*from, ring->active->id)))
		ret = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "these are not newer keys of the same volume");
	else if (!same_deks_locked(ring, *from))
		ret = cmek_error_set(err, CMEK_E_TAMPERED, EEXIST, "a data key is another one than before");
	else
		move_locked(ring, *from);
out:
	pthread_mutex_unlock(&ring->lock);
	if (!ret) {
		cmek_keyring_free(*from);
		*from = NULL;
	}
	return ret;
}

uint16_t cmek_keyring_active_dek(const struct cmek_keyring *ring)
{
	struct cmek_keyring *r = (struct cmek_keyring *)ring; /* for its lock alone */
	uint16_t id;

	pthread_mutex_lock(&r->lock);
	id = r->active ? r->active->id : 0;
	pthread_mutex_unlock(&r->lock);
	return id;
}

size_t cmek_keyring_old_deks(const struct cmek_keyring *ring, uint16_t *ret_ids, size_t max)
{
	struct cmek_keyring *r = (struct cmek_keyring *)ring; /* for its lock alone */
	size_t i, n = 0;

	pthread_mutex_lock(&r->lock);
	for (i = 0; i < r->n_deks; i++) {
		if (r->deks[i]->state != CMEK_DEK_DECRYPT_ONLY)
			continue;
		if (n < max)
			ret_ids[n] = r->deks[i]->id;
		n++;
	}
	pthread_mutex_unlock(&r->lock);
	return n;
}

void cmek_keyring_retire_dek(struct cmek_keyring *ring, uint16_t id)
{
	struct cmek_secret *keys[N_KEYS] = { NULL };
	struct dek *dek;

	pthread_mutex_lock(&ring->lock);
	dek = find_locked(ring, id);
	assert(!dek || dek->state != CMEK_DEK_ACTIVE);
	if (dek && dek->state == CMEK_DEK_DECRYPT_ONLY) {
		dek->state = CMEK_DEK_RETIRED;
		memcpy(keys, dek->keys, sizeof(keys));
		memset(dek->keys, 0, sizeof(dek->keys));
	}
	pthread_mutex_unlock(&ring->lock);
	free_dek_keys(keys);
}

static bool is_refused(enum cmek_dek_state state)
{
	return state == CMEK_DEK_RETIRED || state == CMEK_DEK_DESTROYED;
}

static void draw_salt_locked(struct cmek_keyring *ring, uint64_t now)
{
	cmek_random(ring->session->salt, CMEK_SALT_LEN);
	/* Means that the random generator is broken: nothing sealed from here on would be safe. */
	if (cmek_is_zero(ring->session->salt, CMEK_SALT_LEN))
		abort();
	ring->session_start_s = now;
	ring->session_seals = 0;
	ring->epoch++;
}

int cmek_keyring_seal_right(struct cmek_keyring *ring, uint32_t n, struct cmek_seal_right *ret_right)
{
	uint64_t now = now_s();
	int ret = -EKEYREVOKED;

	if (n == 0)
		return -EINVAL;
	pthread_mutex_lock(&ring->lock);
	if (!ring->active)
		goto out;
	/* At the end of the counter a new salt makes new keys, so it can begin anew. */
	if (ring->next_counter + n - 1 > CMEK_COUNTER_MAX) {
		memset(ring->session->salt, 0, CMEK_SALT_LEN);
		ring->next_counter = 1;
	}
	if (cmek_is_zero(ring->session->salt, CMEK_SALT_LEN) || now - ring->session_start_s >= SESSION_MAX_SECONDS ||
	    ring->session_seals + n > SESSION_MAX_SEALS)
		draw_salt_locked(ring, now);
	ret_right->dek = ring->active->id;
	memcpy(ret_right->salt, ring->session->salt, CMEK_SALT_LEN);
	ret_right->first = ring->next_counter;
	ret_right->epoch = ring->epoch;
	ring->next_counter += n;
	ring->session_seals += n;
	ret = 0;
out:
	pthread_mutex_unlock(&ring->lock);
	return ret;
}

void cmek_keyring_count_sealed(struct cmek_keyring *ring, uint16_t dek, uint64_t bytes)
{
	uint_fast16_t id;
	size_t i;

	for (i = 0; i < CMEK_DEK_USES_MAX; i++) {
		id = atomic_load_explicit(&ring->uses[i].id, memory_order_relaxed);
		if (id == 0 && atomic_compare_exchange_strong(&ring->uses[i].id, &id, dek))
			id = dek;
		if (id != dek)
			continue;
		atomic_fetch_add_explicit(&ring->uses[i].bytes, bytes, memory_order_relaxed);
		return;
	}
}

uint64_t cmek_keyring_sealed_bytes(const struct cmek_keyring *ring, uint16_t dek)
{
	size_t i;

	for (i = 0; i < CMEK_DEK_USES_MAX; i++)
		if (atomic_load(&ring->uses[i].id) == dek)
			return atomic_load(&ring->uses[i].bytes);
	return 0;
}

void cmek_keyring_new_session(struct cmek_keyring *ring)
{
	pthread_mutex_lock(&ring->lock);
	memset(ring->session->salt, 0, CMEK_SALT_LEN);
	pthread_mutex_unlock(&ring->lock);
}

void cmek_keyring_age_session(struct cmek_keyring *ring, uint64_t seconds, uint64_t seals)
{
	pthread_mutex_lock(&ring->lock);
	ring->session_start_s -= seconds;
	ring->session_seals += seals;
	ring->next_counter += seals;
	pthread_mutex_unlock(&ring->lock);
}

void cmek_keyring_nonce(enum cmek_domain domain, uint64_t counter, uint8_t nonce[12])
{
	assert(counter <= CMEK_COUNTER_MAX);
	nonce[0] = (uint8_t)domain;
	memset(nonce + 1, 0, 5);
	cmek_store48(nonce + 6, counter);
}

/* A reference to one of the DEK's keys. */
static int get_key(struct cmek_keyring *ring, uint16_t id, int which, struct cmek_secret **ret_key)
{
	const struct dek *dek;
	int ret = 0;

	pthread_mutex_lock(&ring->lock);
	dek = find_locked(ring, id);
	if (!dek)
		ret = ring->wiped ? -EKEYREVOKED : -ENOKEY;
	else if (is_refused(dek->state))
		ret = -EKEYREVOKED;
	else
		*ret_key = cmek_secret_ref(dek->keys[which]);
	pthread_mutex_unlock(&ring->lock);
	return ret;
}

static int salted_key(struct cmek_keyring *ring, uint16_t id, const uint8_t salt[CMEK_SALT_LEN], const void *info,
		      size_t info_len, enum cmek_purpose purpose, struct cmek_secret **ret_key)
{
	struct cmek_secret *key = NULL;
	int ret;

	/* Nothing is ever sealed under a zero salt, so bytes that name one are not ours. */
	if (cmek_is_zero(salt, CMEK_SALT_LEN))
		return -EBADMSG;
	ret = get_key(ring, id, KEY_ITSELF, &key);
	if (ret)
		return ret;
	ret = cmek_hkdf(key, CMEK_KEY_DEK, salt, CMEK_SALT_LEN, info, info_len, purpose, 32, ret_key, NULL);
	cmek_secret_free(key);
	return ret;
}

int cmek_keyring_content_key(struct cmek_keyring *ring, uint16_t dek, const uint8_t salt[CMEK_SALT_LEN],
			     const uint8_t file_id[CMEK_FILE_ID_LEN], struct cmek_secret **ret_key)
{
	static const char label[16] = "cmekfs 1 content"; /* no NUL */
	uint8_t info[sizeof(label) + CMEK_FILE_ID_LEN];

	memcpy(info, label, sizeof(label));
	memcpy(info + sizeof(label), file_id, CMEK_FILE_ID_LEN);
	return salted_key(ring, dek, salt, info, sizeof(info), CMEK_KEY_CONTENT, ret_key);
}

int cmek_keyring_journal_key(struct cmek_keyring *ring, uint16_t dek, const uint8_t salt[CMEK_SALT_LEN],
			     struct cmek_secret **ret_key)
{
	static const char label[] = "cmekfs 1 journal";

	return salted_key(ring, dek, salt, label, sizeof(label) - 1, CMEK_KEY_JOURNAL, ret_key);
}

int cmek_keyring_xattr_key(struct cmek_keyring *ring, uint16_t dek, const uint8_t salt[CMEK_SALT_LEN],
			   struct cmek_secret **ret_key)
{
	static const char label[] = "cmekfs 1 xattr";

	return salted_key(ring, dek, salt, label, sizeof(label) - 1, CMEK_KEY_XATTR, ret_key);
}

int cmek_keyring_name_key(struct cmek_keyring *ring, uint16_t dek, struct cmek_secret **ret_key)
{
	return get_key(ring, dek, KEY_NAME, ret_key);
}

int cmek_keyring_symlink_key(struct cmek_keyring *ring, uint16_t dek, struct cmek_secret **ret_key)
{
	return get_key(ring, dek, KEY_SYMLINK, ret_key);
}

int cmek_keyring_xattr_name_key(struct cmek_keyring *ring, uint16_t dek, struct cmek_secret **ret_key)
{
	return get_key(ring, dek, KEY_XATTR_NAME, ret_key);
}
