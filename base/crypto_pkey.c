/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Cryptography with key pairs, by OpenSSL: signatures and X25519. It must not know what is signed or agreed upon.
 */
#include "config.h"

#include "base/crypto.h"

#include <errno.h>
#include <limits.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include "base/crypto_impl.h"

/* An encrypted key is refused: the library must not ask anybody for its passphrase. */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
	(void)buf;
	(void)size;
	(void)rwflag;
	(void)arg;
	return -1;
}

static int read_private_key(const struct cmek_secret *pem, EVP_PKEY **ret_key, struct cmek_error *err)
{
	EVP_PKEY *key;
	BIO *bio;

	if (cmek_secret_len(pem) > INT_MAX)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "a private key of %zu bytes", cmek_secret_len(pem));
	/* A view of the secret's own pages: nothing is copied until the key is decoded. */
	bio = BIO_new_mem_buf(cmek_secret_bytes(pem, CMEK_KEY_TEXT), (int)cmek_secret_len(pem));
	if (!bio)
		return cmek_error_sys(err, ENOMEM, "reading a private key");
	key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
	BIO_free(bio);
	/* OpenSSL's reason could quote what it read, and would not help the reader. */
	ERR_clear_error();
	if (!key)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "it is not an unencrypted private key in PEM");
	*ret_key = key;
	return 0;
}

static int read_rsa_key(const struct cmek_secret *pem, EVP_PKEY **ret_key, struct cmek_error *err)
{
	EVP_PKEY *key = NULL;
	int ret = read_private_key(pem, &key, err);

	if (ret)
		return ret;
	if (!EVP_PKEY_is_a(key, "RSA") || EVP_PKEY_get_bits(key) < 2048 ||
	    EVP_PKEY_get_size(key) > CMEK_RSA_SIG_MAX) {
		EVP_PKEY_free(key);
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "it is not an RSA key of 2048 to %d bits",
				      CMEK_RSA_SIG_MAX * 8);
	}
	*ret_key = key;
	return 0;
}

/* md: NULL = what kind of key it is says so. *sig_len: the room for the signature, then its length. */
static int sign(EVP_PKEY *key, const EVP_MD *md, const char *what, const void *data, size_t len, uint8_t *ret_sig, size_t *sig_len,
		struct cmek_error *err)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int ret = 0;

	if (!ctx)
		ret = cmek_error_sys(err, ENOMEM, "signing");
	else if (EVP_DigestSignInit(ctx, NULL, md, NULL, key) != 1 || EVP_DigestSign(ctx, ret_sig, sig_len, data, len) != 1)
		ret = cmek_openssl_failed(err, what);
	EVP_MD_CTX_free(ctx);
	return ret;
}

int cmek_rs256_sign(const struct cmek_secret *pem, const void *data, size_t len, uint8_t ret_sig[CMEK_RSA_SIG_MAX],
		    size_t *ret_len, struct cmek_error *err)
{
	size_t sig_len = CMEK_RSA_SIG_MAX;
	EVP_PKEY *key = NULL;
	int ret;

	ERR_clear_error();
	ret = read_rsa_key(pem, &key, err);
	if (!ret)
		ret = sign(key, EVP_sha256(), "an RSA signature", data, len, ret_sig, &sig_len, err);
	if (!ret)
		*ret_len = sig_len;
	EVP_PKEY_free(key);
	return ret;
}

int cmek_ed25519_sign(const struct cmek_secret *pem, const void *data, size_t len, uint8_t ret_sig[CMEK_ED25519_SIG_LEN],
		      uint8_t ret_public[CMEK_ED25519_PUBLIC_LEN], struct cmek_error *err)
{
	size_t sig_len = CMEK_ED25519_SIG_LEN, public_len = CMEK_ED25519_PUBLIC_LEN;
	EVP_PKEY *key = NULL;
	int ret;

	ERR_clear_error();
	ret = read_private_key(pem, &key, err);
	if (!ret && !EVP_PKEY_is_a(key, "ED25519"))
		ret = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "it is not an Ed25519 key");
	else if (!ret && EVP_PKEY_get_raw_public_key(key, ret_public, &public_len) != 1)
		ret = cmek_openssl_failed(err, "an Ed25519 signature");
	if (!ret)
		ret = sign(key, NULL, "an Ed25519 signature", data, len, ret_sig, &sig_len, err);
	EVP_PKEY_free(key);
	return ret;
}

static int x25519_key(const struct cmek_secret *private_key, enum cmek_purpose purpose, EVP_PKEY **ret_key, struct cmek_error *err)
{
	EVP_PKEY *key;

	if (cmek_secret_len(private_key) != CMEK_X25519_LEN)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "an X25519 key of %zu bytes", cmek_secret_len(private_key));
	key = EVP_PKEY_new_raw_private_key_ex(NULL, "X25519", NULL, cmek_secret_bytes(private_key, purpose), CMEK_X25519_LEN);
	if (!key)
		return cmek_openssl_failed(err, "an X25519 key");
	*ret_key = key;
	return 0;
}

int cmek_x25519_public(const struct cmek_secret *private_key, enum cmek_purpose purpose, uint8_t ret_public[CMEK_X25519_LEN],
		       struct cmek_error *err)
{
	size_t len = CMEK_X25519_LEN;
	EVP_PKEY *key = NULL;
	int ret;

	ERR_clear_error();
	ret = x25519_key(private_key, purpose, &key, err);
	if (!ret && EVP_PKEY_get_raw_public_key(key, ret_public, &len) != 1)
		ret = cmek_openssl_failed(err, "an X25519 key");
	EVP_PKEY_free(key);
	return ret;
}

int cmek_x25519(const struct cmek_secret *private_key, enum cmek_purpose purpose, const uint8_t peer[CMEK_X25519_LEN],
		struct cmek_secret **ret_shared, struct cmek_error *err)
{
	EVP_PKEY *key = NULL, *public = NULL;
	struct cmek_secret *shared = NULL;
	size_t len = CMEK_X25519_LEN;
	EVP_PKEY_CTX *ctx = NULL;
	int ret;

	ERR_clear_error();
	ret = x25519_key(private_key, purpose, &key, err);
	if (!ret)
		ret = cmek_secret_new(CMEK_KEY_STORE, CMEK_X25519_LEN, &shared, err);
	if (ret)
		goto out;
	public = EVP_PKEY_new_raw_public_key_ex(NULL, "X25519", NULL, peer, CMEK_X25519_LEN);
	ctx = public ? EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL) : NULL;
	if (!ctx || EVP_PKEY_derive_init(ctx) != 1 || EVP_PKEY_derive_set_peer(ctx, public) != 1)
		ret = cmek_openssl_failed(err, "X25519");
	else if (EVP_PKEY_derive(ctx, cmek_secret_fill(shared, CMEK_KEY_STORE), &len) != 1 || len != CMEK_X25519_LEN)
		/* RFC 7748 s6.1: a point of small order gives zero, which OpenSSL refuses. */
		ret = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the public key is none that X25519 can be used with");
	ERR_clear_error();
	if (!ret) {
		*ret_shared = shared;
		shared = NULL;
	}
out:
	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(public);
	EVP_PKEY_free(key);
	cmek_secret_free(shared);
	return ret;
}
