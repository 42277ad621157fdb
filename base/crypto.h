/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_BASE_CRYPTO_H
#define CMEK_BASE_CRYPTO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/secret.h"

/*
 * The only user of OpenSSL. Thread-safe: every thread has its own few cipher contexts, keyed anew only when a key comes
 * that none of them holds. Failures inside OpenSSL other than a bad tag are -EIO (cold paths: with the reason that
 * OpenSSL gives), no memory is -ENOMEM, a text or piece longer than INT_MAX bytes -EINVAL.
 */
#define CMEK_NONCE_LEN 12
#define CMEK_TAG_LEN 16
#define CMEK_SIV_LEN 16
#define CMEK_SHA256_LEN 32

/*
 * AES-256-GCM with a 96-bit nonce and a 128-bit tag (SP 800-38D). key: 32 bytes, made for `purpose`.
 * in and out may be the same buffer. cmek_gcm_open() returns -EBADMSG when the tag does not fit, out is then wiped.
 * aad is n_aad pieces, authenticated in order as if joined.
 */
int cmek_gcm_seal(const struct cmek_secret *key, enum cmek_purpose purpose, const uint8_t nonce[CMEK_NONCE_LEN],
		  const struct iovec *aad, int n_aad, const void *in, size_t len, void *out, uint8_t tag[CMEK_TAG_LEN]);
int cmek_gcm_open(const struct cmek_secret *key, enum cmek_purpose purpose, const uint8_t nonce[CMEK_NONCE_LEN],
		  const struct iovec *aad, int n_aad, const void *in, size_t len, void *out,
		  const uint8_t tag[CMEK_TAG_LEN]);

/*
 * AES-256-SIV (RFC 5297). key: 64 bytes. ad: the n_ad associated-data strings S1..Sn, in order, each its own string.
 * seal: out is CMEK_SIV_LEN + len bytes: V then the ciphertext. open: in is CMEK_SIV_LEN + plain length bytes,
 * out gets len - CMEK_SIV_LEN bytes; -EBADMSG when V does not fit (out is then wiped) or len is CMEK_SIV_LEN or less.
 * The plain text and each associated string have 1 byte or more, else -EINVAL. in and out must not overlap.
 */
int cmek_siv_seal(const struct cmek_secret *key, enum cmek_purpose purpose, const struct iovec *ad, int n_ad,
		  const void *in, size_t len, void *out);
int cmek_siv_open(const struct cmek_secret *key, enum cmek_purpose purpose, const struct iovec *ad, int n_ad,
		  const void *in, size_t len, void *out);

/* HKDF-SHA256 (RFC 5869): a new secret of out_len bytes. salt may be NULL with salt_len 0. */
int cmek_hkdf(const struct cmek_secret *ikm, enum cmek_purpose ikm_purpose, const void *salt, size_t salt_len,
	      const void *info, size_t info_len, enum cmek_purpose out_purpose, size_t out_len,
	      struct cmek_secret **ret_key, struct cmek_error *err);

/* HMAC-SHA256 over n pieces as if joined. */
int cmek_hmac(const struct cmek_secret *key, enum cmek_purpose purpose, const struct iovec *in, int n,
	      uint8_t mac[CMEK_SHA256_LEN]);
int cmek_sha256(const struct iovec *in, int n, uint8_t digest[CMEK_SHA256_LEN]);

/*
 * scrypt (RFC 7914): a CMEK_KEY_STORE of 32 bytes from a passphrase (CMEK_KEY_TEXT). Kinds: bad-format, -EINVAL: N is
 * not a power of two above 1, or r or p is 0; limit, -ENOMEM: it needs more than 1 GiB (N = 2^20, r = 8 just fits).
 */
int cmek_scrypt(const struct cmek_secret *passphrase, const void *salt, size_t salt_len, uint64_t n, uint32_t r,
		uint32_t p, struct cmek_secret **ret_key, struct cmek_error *err);

/*
 * RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 s8.2; RS256 of RFC 7518). pem: CMEK_KEY_TEXT, a private key as PKCS#8 or
 * PKCS#1, 2048 to 8192 bits, not encrypted: a passphrase is never asked for. *ret_len bytes of signature.
 * Kind bad-format, -EINVAL: it is no such key.
 */
#define CMEK_RSA_SIG_MAX 1024
int cmek_rs256_sign(const struct cmek_secret *pem, const void *data, size_t len, uint8_t ret_sig[CMEK_RSA_SIG_MAX],
		    size_t *ret_len, struct cmek_error *err);

/*
 * Ed25519 (RFC 8032). pem: as above, a private key as PKCS#8. The public key that verifies it comes along. Kind
 * bad-format, -EINVAL: it is no such key.
 */
#define CMEK_ED25519_SIG_LEN 64
#define CMEK_ED25519_PUBLIC_LEN 32
int cmek_ed25519_sign(const struct cmek_secret *pem, const void *data, size_t len, uint8_t ret_sig[CMEK_ED25519_SIG_LEN],
		      uint8_t ret_public[CMEK_ED25519_PUBLIC_LEN], struct cmek_error *err);

/*
 * What all threads have sealed and opened since the process began: calls, bytes of text, and openings that did not
 * authenticate. Thread-safe.
 */
enum { CMEK_AEAD_GCM, CMEK_AEAD_SIV, CMEK_AEADS };
struct cmek_aead_counts {
	struct {
		uint64_t seals, opens, sealed_bytes, opened_bytes, failures;
	} of[CMEK_AEADS];
};
void cmek_crypto_counts(struct cmek_aead_counts *ret_counts);

/*
 * X25519 (RFC 7748). private: 32 bytes, any. The shared secret is a CMEK_KEY_STORE of 32 bytes; kind bad-format, -EINVAL:
 * the peer's public key gives none.
 */
#define CMEK_X25519_LEN 32
int cmek_x25519_public(const struct cmek_secret *private_key, enum cmek_purpose purpose, uint8_t ret_public[CMEK_X25519_LEN],
		       struct cmek_error *err);
int cmek_x25519(const struct cmek_secret *private_key, enum cmek_purpose purpose, const uint8_t peer[CMEK_X25519_LEN],
		struct cmek_secret **ret_shared, struct cmek_error *err);

/* Random bytes from the system; aborts if there are none (no caller could go on safely). */
void cmek_random(void *buf, size_t n);
/* Constant-time comparison: 1 when equal. */
int cmek_equal(const void *a, const void *b, size_t n);

/*
 * Clears every thread's cipher contexts that hold the key with this serial. cmek_secret_free() does it for each secret;
 * nobody else has to.
 */
void cmek_crypto_forget(uint64_t serial);

#endif
