/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Symmetric cryptography by OpenSSL: AEAD, key derivation, digests, and the per-thread cache of keyed cipher contexts. Knows
 * neither what a nonce means nor what a block is; callers own nonce uniqueness.
 *
 * A cipher context holds the expanded key on OpenSSL's heap, outside the locked pages of secret.c. That is the price of
 * not expanding it for every block. The copies are bounded (SLOTS a thread and cipher) and end with the secret: freeing
 * a secret clears every context that was keyed with it, in whichever thread it lies (cmek_crypto_forget()).
 *
 * Long because the cache, which is a third of it, is nobody's business but that of the ciphers.
 */
#include "config.h"

#include "base/crypto.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "base/crypto_impl.h"
#include "base/log.h"
#include "base/nonce_log.h"

#define GCM_KEY_LEN 32
#define SIV_KEY_LEN 64
#define SCRYPT_KEY_LEN 32
/* What scrypt may ask for: 1 GiB for its large table (N = 2^20, r = 8), and a little for its working blocks. */
#define SCRYPT_MEMORY_MAX ((UINT64_C(1) << 30) + (UINT64_C(1) << 20))

/* ---- algorithms, fetched once ---- */

static struct {
	EVP_CIPHER *gcm;
	EVP_CIPHER *siv;
	EVP_MD *sha256;
	EVP_MAC *hmac;
	EVP_KDF *hkdf;
} algorithms;
static pthread_once_t algorithms_once = PTHREAD_ONCE_INIT;

static void fetch_algorithms(void)
{
	algorithms.gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
	algorithms.siv = EVP_CIPHER_fetch(NULL, "AES-256-SIV", NULL);
	algorithms.sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	algorithms.hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	algorithms.hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
}

int cmek_openssl_failed(struct cmek_error *err, const char *what)
{
	char text[256] = "no reason given";
	unsigned long code = ERR_get_error();

	if (code)
		ERR_error_string_n(code, text, sizeof(text));
	ERR_clear_error();
	if (!err)
		cmek_log(CMEK_LOG_DEBUG, "%s: %s", what, text);
	return cmek_error_set(err, CMEK_E_SYSTEM, EIO, "%s failed in OpenSSL: %s", what, text);
}

/* ---- the cache of a thread ---- */

#define SLOTS 8

/* serial: whose key the context holds, 0 = none. Written by the thread under the cache's lock, read by anybody. */
struct slot {
	EVP_CIPHER_CTX *ctx;
	_Atomic uint64_t serial;
	uint64_t last_used;
};

struct slots {
	struct slot slot[SLOTS];
	uint64_t clock;
};

/*
 * The lock is held by the owner for the length of one operation, and by whoever frees a secret that is cached here:
 * almost never contended. Order: caches.lock, then a cache's lock.
 */
struct cache {
	pthread_mutex_t lock;
	struct cache *prev, *next; /* in caches.first, under caches.lock */
	struct slots gcm, siv;
	EVP_CIPHER_CTX *siv_work; /* empty between operations */
	EVP_MD_CTX *md;
	struct cmek_aead_counts counts;
};

static struct {
	pthread_mutex_t lock;
	struct cache *first;
	struct cmek_aead_counts counts; /* of threads that have ended */
	pthread_key_t key; /* its destructor frees a thread's cache */
} caches = { .lock = PTHREAD_MUTEX_INITIALIZER };

static __thread struct cache *own_cache;

static void add_counts(struct cmek_aead_counts *to, const struct cmek_aead_counts *more)
{
	int i;

	for (i = 0; i < CMEK_AEADS; i++) {
		to->of[i].seals += more->of[i].seals;
		to->of[i].opens += more->of[i].opens;
		to->of[i].sealed_bytes += more->of[i].sealed_bytes;
		to->of[i].opened_bytes += more->of[i].opened_bytes;
		to->of[i].failures += more->of[i].failures;
	}
}

static void count_seal(struct cache *cache, int aead, size_t len)
{
	cache->counts.of[aead].seals++;
	cache->counts.of[aead].sealed_bytes += len;
}

static void count_open(struct cache *cache, int aead, size_t len, int ret)
{
	cache->counts.of[aead].opens++;
	cache->counts.of[aead].opened_bytes += len;
	cache->counts.of[aead].failures += ret == -EBADMSG;
}

static void slots_done(struct slots *slots)
{
	size_t i;

	for (i = 0; i < SLOTS; i++)
		EVP_CIPHER_CTX_free(slots->slot[i].ctx);
}

static void cache_free(struct cache *cache)
{
	if (!cache)
		return;
	slots_done(&cache->gcm);
	slots_done(&cache->siv);
	EVP_CIPHER_CTX_free(cache->siv_work);
	EVP_MD_CTX_free(cache->md);
	pthread_mutex_destroy(&cache->lock);
	free(cache);
}

/* At the end of a thread. One that still seals after that (in a destructor of its own) gets another cache. */
static void thread_ended(void *arg)
{
	struct cache *cache = arg;

	own_cache = NULL;
	pthread_mutex_lock(&caches.lock);
	if (cache->prev)
		cache->prev->next = cache->next;
	else
		caches.first = cache->next;
	if (cache->next)
		cache->next->prev = cache->prev;
	add_counts(&caches.counts, &cache->counts);
	pthread_mutex_unlock(&caches.lock);
	cache_free(cache);
}

static void before_fork(void)
{
	struct cache *cache;

	pthread_mutex_lock(&caches.lock);
	for (cache = caches.first; cache; cache = cache->next)
		pthread_mutex_lock(&cache->lock);
}

/* In the child the caches of threads that are not there any more stay in the list, so that they can be cleared. */
static void after_fork(void)
{
	struct cache *cache;

	for (cache = caches.first; cache; cache = cache->next)
		pthread_mutex_unlock(&cache->lock);
	pthread_mutex_unlock(&caches.lock);
}

static void set_up(void)
{
	fetch_algorithms();
	if (pthread_key_create(&caches.key, thread_ended) || pthread_atfork(before_fork, after_fork, after_fork))
		abort(); /* at the first use, before there is anything to lose */
}

static bool slots_init(struct slots *slots)
{
	size_t i;

	for (i = 0; i < SLOTS; i++) {
		slots->slot[i].ctx = EVP_CIPHER_CTX_new();
		if (!slots->slot[i].ctx)
			return false;
	}
	return true;
}

static struct cache *cache_new(void)
{
	struct cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return NULL;
	pthread_mutex_init(&cache->lock, NULL);
	cache->md = EVP_MD_CTX_new();
	cache->siv_work = EVP_CIPHER_CTX_new();
	if (!cache->md || !cache->siv_work || !slots_init(&cache->gcm) || !slots_init(&cache->siv) ||
	    pthread_setspecific(caches.key, cache)) {
		cache_free(cache);
		return NULL;
	}
	pthread_mutex_lock(&caches.lock);
	cache->next = caches.first;
	if (cache->next)
		cache->next->prev = cache;
	caches.first = cache;
	pthread_mutex_unlock(&caches.lock);
	return cache;
}

/* The thread's cache, locked; NULL when there is no memory for one. */
static struct cache *cache_enter(void)
{
	pthread_once(&algorithms_once, set_up);
	if (!own_cache)
		own_cache = cache_new();
	if (own_cache)
		pthread_mutex_lock(&own_cache->lock);
	return own_cache;
}

static void cache_leave(struct cache *cache)
{
	pthread_mutex_unlock(&cache->lock);
}

static void slot_clear(struct slot *slot)
{
	/* Wipes and frees the expanded key; the context stays and is given a cipher at its next use. */
	EVP_CIPHER_CTX_reset(slot->ctx);
	atomic_store_explicit(&slot->serial, 0, memory_order_relaxed);
}

static void slots_forget(struct cache *cache, struct slots *slots, uint64_t serial)
{
	size_t i;

	for (i = 0; i < SLOTS; i++) {
		/* Nobody uses a secret that is being freed, so this serial can go from a slot but not come to one. */
		if (atomic_load_explicit(&slots->slot[i].serial, memory_order_relaxed) != serial)
			continue;
		pthread_mutex_lock(&cache->lock);
		if (atomic_load_explicit(&slots->slot[i].serial, memory_order_relaxed) == serial)
			slot_clear(&slots->slot[i]);
		pthread_mutex_unlock(&cache->lock);
	}
}

void cmek_crypto_forget(uint64_t serial)
{
	struct cache *cache;

	pthread_mutex_lock(&caches.lock);
	for (cache = caches.first; cache; cache = cache->next) {
		slots_forget(cache, &cache->gcm, serial);
		slots_forget(cache, &cache->siv, serial);
	}
	pthread_mutex_unlock(&caches.lock);
}

void cmek_crypto_counts(struct cmek_aead_counts *ret_counts)
{
	struct cache *cache;

	pthread_mutex_lock(&caches.lock);
	*ret_counts = caches.counts;
	for (cache = caches.first; cache; cache = cache->next) {
		pthread_mutex_lock(&cache->lock);
		add_counts(ret_counts, &cache->counts);
		pthread_mutex_unlock(&cache->lock);
	}
	pthread_mutex_unlock(&caches.lock);
}

/* The slot that holds this key, or the one that was not used for longest. */
static struct slot *slot_for(struct slots *slots, uint64_t serial)
{
	struct slot *oldest = &slots->slot[0];
	size_t i;

	slots->clock++;
	for (i = 0; i < SLOTS; i++) {
		struct slot *slot = &slots->slot[i];

		if (atomic_load_explicit(&slot->serial, memory_order_relaxed) == serial) {
			slot->last_used = slots->clock;
			return slot;
		}
		if (slot->last_used < oldest->last_used)
			oldest = slot;
	}
	oldest->last_used = slots->clock;
	return oldest;
}

/* ---- AES-256-GCM ---- */

/*
 * A context keyed with this key, with its nonce set, for sealing or opening. The serial is written before the key goes
 * in: a context never holds a key that it does not name.
 */
static int gcm_start(struct cache *cache, const uint8_t *key, uint64_t serial, const uint8_t *nonce, bool seal,
		     struct slot **ret_slot)
{
	struct slot *slot = slot_for(&cache->gcm, serial);
	const EVP_CIPHER *cipher = EVP_CIPHER_CTX_get0_cipher(slot->ctx) ? NULL : algorithms.gcm;

	if (atomic_load_explicit(&slot->serial, memory_order_relaxed) == serial)
		key = NULL;
	else
		atomic_store_explicit(&slot->serial, serial, memory_order_relaxed);
	if (EVP_CipherInit_ex(slot->ctx, cipher, NULL, key, nonce, seal) != 1) {
		slot_clear(slot);
		return cmek_openssl_failed(NULL, "AES-256-GCM");
	}
	*ret_slot = slot;
	return 0;
}

/* Associated data, then the text. */
static int gcm_update(EVP_CIPHER_CTX *ctx, const struct iovec *aad, int n_aad, const void *in, size_t len, void *out)
{
	int i, n;

	for (i = 0; i < n_aad; i++)
		if (aad[i].iov_len > 0 &&
		    EVP_CipherUpdate(ctx, NULL, &n, aad[i].iov_base, (int)aad[i].iov_len) != 1)
			return cmek_openssl_failed(NULL, "AES-256-GCM");
	if (len > 0 && EVP_CipherUpdate(ctx, out, &n, in, (int)len) != 1)
		return cmek_openssl_failed(NULL, "AES-256-GCM");
	return 0;
}

static bool lengths_ok(const struct iovec *iov, int n, size_t len)
{
	int i;

	for (i = 0; i < n; i++)
		if (iov[i].iov_len > INT_MAX)
			return false;
	return len <= INT_MAX;
}

int cmek_gcm_seal(const struct cmek_secret *key, enum cmek_purpose purpose, const uint8_t nonce[CMEK_NONCE_LEN],
		  const struct iovec *aad, int n_aad, const void *in, size_t len, void *out, uint8_t tag[CMEK_TAG_LEN])
{
	const uint8_t *bytes = cmek_secret_bytes(key, purpose);
	uint8_t rest[1]; /* GCM has none */
	struct cache *cache;
	struct slot *slot;
	int n, ret;

	assert(cmek_secret_len(key) == GCM_KEY_LEN);
	if (!lengths_ok(aad, n_aad, len))
		return -EINVAL;
	cmek_nonce_log(bytes, GCM_KEY_LEN, nonce, CMEK_NONCE_LEN);
	cache = cache_enter();
	if (!cache)
		return -ENOMEM;
	ret = gcm_start(cache, bytes, cmek_secret_serial(key), nonce, true, &slot);
	if (ret)
		goto out;
	ret = gcm_update(slot->ctx, aad, n_aad, in, len, out);
	if (!ret && (EVP_CipherFinal_ex(slot->ctx, rest, &n) != 1 ||
		     EVP_CIPHER_CTX_ctrl(slot->ctx, EVP_CTRL_AEAD_GET_TAG, CMEK_TAG_LEN, tag) != 1))
		ret = cmek_openssl_failed(NULL, "AES-256-GCM");
	if (ret)
		slot_clear(slot);
	else
		count_seal(cache, CMEK_AEAD_GCM, len);
out:
	cache_leave(cache);
	return ret;
}

int cmek_gcm_open(const struct cmek_secret *key, enum cmek_purpose purpose, const uint8_t nonce[CMEK_NONCE_LEN],
		  const struct iovec *aad, int n_aad, const void *in, size_t len, void *out,
		  const uint8_t tag[CMEK_TAG_LEN])
{
	const uint8_t *bytes = cmek_secret_bytes(key, purpose);
	struct cache *cache;
	struct slot *slot;
	uint8_t rest[1];
	int n, ret;

	assert(cmek_secret_len(key) == GCM_KEY_LEN);
	if (!lengths_ok(aad, n_aad, len))
		return -EINVAL;
	cache = cache_enter();
	if (!cache)
		return -ENOMEM;
	ret = gcm_start(cache, bytes, cmek_secret_serial(key), nonce, false, &slot);
	if (ret)
		goto out;
	ret = gcm_update(slot->ctx, aad, n_aad, in, len, out);
	if (!ret && EVP_CIPHER_CTX_ctrl(slot->ctx, EVP_CTRL_AEAD_SET_TAG, CMEK_TAG_LEN, (void *)tag) != 1)
		ret = cmek_openssl_failed(NULL, "AES-256-GCM");
	if (ret) {
		slot_clear(slot);
	} else if (EVP_CipherFinal_ex(slot->ctx, rest, &n) != 1) {
		ERR_clear_error();
		ret = -EBADMSG;
	}
	if (ret)
		cmek_wipe(out, len);
	count_open(cache, CMEK_AEAD_GCM, len, ret);
out:
	cache_leave(cache);
	return ret;
}

/* ---- AES-256-SIV ---- */

/*
 * The cache's work context, keyed and given the associated data. OpenSSL takes one message a keying, and keying is the
 * larger part of the time for a short name, so a slot's context is only ever a keyed original to copy from. Whoever
 * called siv_start() ends with siv_end(), also after an error: the copy holds the key, too.
 */
static int siv_start(struct cache *cache, const struct cmek_secret *key, enum cmek_purpose purpose,
		     const struct iovec *ad, int n_ad, const uint8_t *v, bool seal)
{
	const uint8_t *bytes = cmek_secret_bytes(key, purpose);
	uint64_t serial = cmek_secret_serial(key);
	struct slot *slot = slot_for(&cache->siv, serial);
	EVP_CIPHER_CTX *work = cache->siv_work;
	bool ok = true;
	int i, n;

	if (atomic_load_explicit(&slot->serial, memory_order_relaxed) != serial) {
		slot_clear(slot);
		atomic_store_explicit(&slot->serial, serial, memory_order_relaxed);
		ok = EVP_EncryptInit_ex(slot->ctx, algorithms.siv, NULL, bytes, NULL) == 1;
	}
	ok = ok && EVP_CIPHER_CTX_copy(work, slot->ctx) == 1;
	ok = ok && EVP_CipherInit_ex(work, NULL, NULL, NULL, NULL, seal) == 1;
	if (v)
		ok = ok && EVP_CIPHER_CTX_ctrl(work, EVP_CTRL_AEAD_SET_TAG, CMEK_SIV_LEN, (void *)v) == 1;
	for (i = 0; ok && i < n_ad; i++)
		ok = EVP_CipherUpdate(work, NULL, &n, ad[i].iov_base, (int)ad[i].iov_len) == 1;
	if (!ok) {
		slot_clear(slot);
		return cmek_openssl_failed(NULL, "AES-256-SIV");
	}
	return 0;
}

static void siv_end(struct cache *cache)
{
	EVP_CIPHER_CTX_reset(cache->siv_work);
}

/*
 * Empty strings: as associated data they count in RFC 5297, and OpenSSL before 3.0.10 ignores them (CVE-2023-2975); an
 * empty text OpenSSL does not take. No format of ours has either.
 */
static bool siv_lengths_ok(const struct iovec *ad, int n_ad, size_t len)
{
	int i;

	for (i = 0; i < n_ad; i++)
		if (ad[i].iov_len == 0)
			return false;
	return len > 0 && lengths_ok(ad, n_ad, len);
}

int cmek_siv_seal(const struct cmek_secret *key, enum cmek_purpose purpose, const struct iovec *ad, int n_ad,
		  const void *in, size_t len, void *out)
{
	struct cache *cache;
	uint8_t *v = out;
	uint8_t rest[1];
	int n, ret;

	assert(cmek_secret_len(key) == SIV_KEY_LEN);
	if (!siv_lengths_ok(ad, n_ad, len))
		return -EINVAL;
	cache = cache_enter();
	if (!cache)
		return -ENOMEM;
	ret = siv_start(cache, key, purpose, ad, n_ad, NULL, true);
	if (!ret && (EVP_CipherUpdate(cache->siv_work, v + CMEK_SIV_LEN, &n, in, (int)len) != 1 ||
		     EVP_CipherFinal_ex(cache->siv_work, rest, &n) != 1 ||
		     EVP_CIPHER_CTX_ctrl(cache->siv_work, EVP_CTRL_AEAD_GET_TAG, CMEK_SIV_LEN, v) != 1))
		ret = cmek_openssl_failed(NULL, "AES-256-SIV");
	siv_end(cache);
	if (!ret)
		count_seal(cache, CMEK_AEAD_SIV, len);
	cache_leave(cache);
	return ret;
}

int cmek_siv_open(const struct cmek_secret *key, enum cmek_purpose purpose, const struct iovec *ad, int n_ad,
		  const void *in, size_t len, void *out)
{
	const uint8_t *v = in;
	struct cache *cache;
	uint8_t rest[1];
	int n, ret;

	assert(cmek_secret_len(key) == SIV_KEY_LEN);
	if (len <= CMEK_SIV_LEN)
		return -EBADMSG;
	len -= CMEK_SIV_LEN;
	if (!siv_lengths_ok(ad, n_ad, len))
		return -EINVAL;
	cache = cache_enter();
	if (!cache)
		return -ENOMEM;
	ret = siv_start(cache, key, purpose, ad, n_ad, v, false);
	/* OpenSSL checks V within the update and says no more than that it failed. */
	if (!ret && (EVP_CipherUpdate(cache->siv_work, out, &n, v + CMEK_SIV_LEN, (int)len) != 1 ||
		     EVP_CipherFinal_ex(cache->siv_work, rest, &n) != 1)) {
		ERR_clear_error();
		ret = -EBADMSG;
	}
	if (ret)
		cmek_wipe(out, len);
	siv_end(cache);
	count_open(cache, CMEK_AEAD_SIV, len, ret);
	cache_leave(cache);
	return ret;
}

/* ---- derivation ---- */

int cmek_hkdf(const struct cmek_secret *ikm, enum cmek_purpose ikm_purpose, const void *salt, size_t salt_len,
	      const void *info, size_t info_len, enum cmek_purpose out_purpose, size_t out_len,
	      struct cmek_secret **ret_key, struct cmek_error *err)
{
	OSSL_PARAM params[5], *p = params;
	struct cmek_secret *key = NULL;
	EVP_KDF_CTX *ctx = NULL;
	int ret;

	pthread_once(&algorithms_once, set_up);
	ret = cmek_secret_new(out_purpose, out_len, &key, err);
	if (ret)
		return ret;
	ERR_clear_error();
	*p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0);
	*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)cmek_secret_bytes(ikm, ikm_purpose),
						 cmek_secret_len(ikm));
	if (salt_len > 0)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)salt, salt_len);
	if (info_len > 0)
		*p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info, info_len);
	*p = OSSL_PARAM_construct_end();
	ctx = EVP_KDF_CTX_new(algorithms.hkdf);
	if (!ctx || EVP_KDF_derive(ctx, cmek_secret_fill(key, out_purpose), out_len, params) != 1) {
		ret = cmek_openssl_failed(err, "HKDF-SHA256");
		goto out;
	}
	*ret_key = key;
	key = NULL;
out:
	EVP_KDF_CTX_free(ctx);
	cmek_secret_free(key);
	return ret;
}

int cmek_scrypt(const struct cmek_secret *passphrase, const void *salt, size_t salt_len, uint64_t n, uint32_t r,
		uint32_t p, struct cmek_secret **ret_key, struct cmek_error *err)
{
	struct cmek_secret *key = NULL;
	uint64_t memory;
	int ret;

	pthread_once(&algorithms_once, set_up);
	if (n < 2 || (n & (n - 1)) || r == 0 || p == 0)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "scrypt: N=%llu r=%u p=%u is not possible",
				      (unsigned long long)n, r, p);
	/* V, its two working blocks, and B (RFC 7914 s5, s6). */
	if (__builtin_add_overflow(n, (uint64_t)p + 2, &memory) ||
	    __builtin_mul_overflow(memory, UINT64_C(128) * r, &memory) || memory > SCRYPT_MEMORY_MAX)
		return cmek_error_set(err, CMEK_E_LIMIT, ENOMEM, "scrypt: N=%llu r=%u p=%u needs more than 1 GiB",
				      (unsigned long long)n, r, p);
	ret = cmek_secret_new(CMEK_KEY_STORE, SCRYPT_KEY_LEN, &key, err);
	if (ret)
		return ret;
	ERR_clear_error();
	if (EVP_PBE_scrypt((const char *)cmek_secret_bytes(passphrase, CMEK_KEY_TEXT), cmek_secret_len(passphrase),
			   salt, salt_len, n, r, p, memory, cmek_secret_fill(key, CMEK_KEY_STORE),
			   SCRYPT_KEY_LEN) != 1) {
		ret = cmek_openssl_failed(err, "scrypt");
		goto out;
	}
	*ret_key = key;
	key = NULL;
out:
	cmek_secret_free(key);
	return ret;
}

/* ---- digests ---- */

int cmek_hmac(const struct cmek_secret *key, enum cmek_purpose purpose, const struct iovec *in, int n,
	      uint8_t mac[CMEK_SHA256_LEN])
{
	OSSL_PARAM params[2];
	EVP_MAC_CTX *ctx;
	int i, ret = 0;
	size_t len;

	pthread_once(&algorithms_once, set_up);
	params[0] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0);
	params[1] = OSSL_PARAM_construct_end();
	ctx = EVP_MAC_CTX_new(algorithms.hmac);
	if (!ctx || EVP_MAC_init(ctx, cmek_secret_bytes(key, purpose), cmek_secret_len(key), params) != 1) {
		ret = cmek_openssl_failed(NULL, "HMAC-SHA256");
		goto out;
	}
	for (i = 0; i < n; i++) {
		if (EVP_MAC_update(ctx, in[i].iov_base, in[i].iov_len) != 1) {
			ret = cmek_openssl_failed(NULL, "HMAC-SHA256");
			goto out;
		}
	}
	if (EVP_MAC_final(ctx, mac, &len, CMEK_SHA256_LEN) != 1)
		ret = cmek_openssl_failed(NULL, "HMAC-SHA256");
out:
	EVP_MAC_CTX_free(ctx);
	return ret;
}

int cmek_sha256(const struct iovec *in, int n, uint8_t digest[CMEK_SHA256_LEN])
{
	struct cache *cache = cache_enter();
	int i, ret = 0;

	if (!cache)
		return -ENOMEM;
	if (EVP_DigestInit_ex(cache->md, algorithms.sha256, NULL) != 1)
		ret = cmek_openssl_failed(NULL, "SHA-256");
	for (i = 0; !ret && i < n; i++)
		if (EVP_DigestUpdate(cache->md, in[i].iov_base, in[i].iov_len) != 1)
			ret = cmek_openssl_failed(NULL, "SHA-256");
	if (!ret && EVP_DigestFinal_ex(cache->md, digest, NULL) != 1)
		ret = cmek_openssl_failed(NULL, "SHA-256");
	cache_leave(cache);
	return ret;
}

/* ---- random, comparison ---- */

void cmek_random(void *buf, size_t n)
{
	uint8_t *p = buf;
	ssize_t got;

	while (n > 0) {
		got = getrandom(p, n, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			abort();
		p += got;
		n -= (size_t)got;
	}
}

int cmek_equal(const void *a, const void *b, size_t n)
{
	return n == 0 || CRYPTO_memcmp(a, b, n) == 0;
}
