/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * base/crypto.h against published vectors, against tampering, and against mixing up keys between threads and contexts.
 */
#include "config.h"

#include <pthread.h>
#include <stdbool.h>

#include "base/crypto.h"
#include "tests/unit/unit.h"

static struct cmek_secret *secret_of(enum cmek_purpose purpose, const void *bytes, size_t len)
{
	struct cmek_secret *s = NULL;

	ck_assert_int_eq(cmek_secret_new_copy(purpose, bytes, len, &s, NULL), 0);
	return s;
}

static struct cmek_secret *secret_of_hex(enum cmek_purpose purpose, const char *hex)
{
	uint8_t bytes[256];

	return secret_of(purpose, bytes, unit_hex(hex, bytes, sizeof(bytes)));
}

/* ---- AES-256-GCM ---- */

#define MV_KEY "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
#define MV_PLAIN                                                                                                       \
	"d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0d" \
	"e657ba637b39"
#define MV_CIPHER                                                                                                      \
	"522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba" \
	"7a0abcc9f662"
#define ZERO_KEY "0000000000000000000000000000000000000000000000000000000000000000"

/* McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 13 to 16 (AES-256, 96-bit IV). */
static const struct {
	const char *name, *key, *nonce, *aad, *plain, *cipher, *tag;
} gcm_rows[] = {
	{ "13", ZERO_KEY, "000000000000000000000000", "", "", "", "530f8afbc74536b9a963b4f1c4cb738b" },
	{ "14", ZERO_KEY, "000000000000000000000000", "", "00000000000000000000000000000000",
	  "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919" },
	{ "15", MV_KEY, "cafebabefacedbaddecaf888", "", MV_PLAIN "1aafd255", MV_CIPHER "898015ad",
	  "b094dac5d93471bdec1a502270e3cc6c" },
	{ "16", MV_KEY, "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2", MV_PLAIN, MV_CIPHER,
	  "76fc6ece0f4e1768cddf8853bb2d551b" },
};

START_TEST(gcm_vector)
{
	struct cmek_secret *key = secret_of_hex(CMEK_KEY_CONTENT, gcm_rows[_i].key);
	uint8_t nonce[12], aad[32], plain[64], cipher[64], want_tag[16], out[64], tag[16];
	size_t aad_len = unit_hex(gcm_rows[_i].aad, aad, sizeof(aad));
	size_t len = unit_hex(gcm_rows[_i].plain, plain, sizeof(plain));
	struct iovec pieces[3] = { { aad, aad_len / 2 }, { aad, 0 }, { aad + aad_len / 2, aad_len - aad_len / 2 } };

	unit_hex(gcm_rows[_i].nonce, nonce, sizeof(nonce));
	ck_assert_uint_eq(unit_hex(gcm_rows[_i].cipher, cipher, sizeof(cipher)), len);
	unit_hex(gcm_rows[_i].tag, want_tag, sizeof(want_tag));

	ck_assert_int_eq(cmek_gcm_seal(key, CMEK_KEY_CONTENT, nonce, pieces, 3, plain, len, out, tag), 0);
	ck_assert_mem_eq(out, cipher, len);
	ck_assert_mem_eq(tag, want_tag, sizeof(tag));
	/* In place, and both ways through one cached context. */
	ck_assert_int_eq(cmek_gcm_open(key, CMEK_KEY_CONTENT, nonce, pieces, 3, out, len, out, tag), 0);
	ck_assert_mem_eq(out, plain, len);
	ck_assert_int_eq(cmek_gcm_seal(key, CMEK_KEY_CONTENT, nonce, pieces, 3, out, len, out, tag), 0);
	ck_assert_mem_eq(out, cipher, len);
	ck_assert_mem_eq(tag, want_tag, sizeof(tag));
	cmek_secret_free(key);
}
END_TEST

/* Every bit of nonce, associated data, text and tag counts; what does not authenticate is not handed out. */
START_TEST(gcm_tampered)
{
	struct cmek_secret *key = NULL;
	uint8_t nonce[12] = { 1 }, aad[8] = { 2 }, text[40] = { 3 }, sealed[40], out[40], tag[16];
	struct { uint8_t *p; size_t n; } parts[] = { { nonce, 12 }, { aad, 8 }, { sealed, 40 }, { tag, 16 } };
	struct iovec ad = { aad, sizeof(aad) };
	size_t i, bit;

	ck_assert_int_eq(cmek_secret_new_random(CMEK_KEY_JOURNAL, 32, &key, NULL), 0);
	ck_assert_int_eq(cmek_gcm_seal(key, CMEK_KEY_JOURNAL, nonce, &ad, 1, text, sizeof(text), sealed, tag), 0);
	for (i = 0; i < 4; i++) {
		for (bit = 0; bit < parts[i].n * 8; bit++) {
			parts[i].p[bit / 8] ^= (uint8_t)(1 << bit % 8);
			memset(out, 0xee, sizeof(out));
			ck_assert_int_eq(cmek_gcm_open(key, CMEK_KEY_JOURNAL, nonce, &ad, 1, sealed, sizeof(sealed),
						       out, tag), -EBADMSG);
			ck_assert(out[0] == 0 && !memcmp(out, out + 1, sizeof(out) - 1));
			parts[i].p[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
	}
	ck_assert_int_eq(cmek_gcm_open(key, CMEK_KEY_JOURNAL, nonce, &ad, 1, sealed, sizeof(sealed), out, tag), 0);
	ck_assert_mem_eq(out, text, sizeof(text));
	ck_assert_int_eq(cmek_gcm_open(key, CMEK_KEY_JOURNAL, nonce, NULL, 0, sealed, sizeof(sealed), out, tag),
			 -EBADMSG);
	cmek_secret_free(key);
}
END_TEST

#define N_KEYS 20 /* more than a thread keeps contexts */

struct keys {
	struct cmek_secret *key[N_KEYS];
	uint8_t cipher[N_KEYS][64], tag[N_KEYS][16];
};

/* Keys in a seeded random order, so that contexts are hit, evicted and keyed anew. */
static void *churn(void *arg)
{
	static const uint8_t nonce[12] = { 9 }, zero[64];
	const struct keys *keys = arg;
	unsigned seed = (unsigned)(uintptr_t)pthread_self();
	uint8_t out[64], tag[16];
	long bad = 0;
	int i, k;

	for (i = 0; i < 3000; i++) {
		k = (int)(rand_r(&seed) >> 4) % (i % 3 ? N_KEYS : 4);
		if (i % 2) {
			bad += cmek_gcm_seal(keys->key[k], CMEK_KEY_CONTENT, nonce, NULL, 0, zero, 64, out, tag) != 0;
			bad += memcmp(out, keys->cipher[k], 64) || memcmp(tag, keys->tag[k], 16);
		} else {
			bad += cmek_gcm_open(keys->key[k], CMEK_KEY_CONTENT, nonce, NULL, 0, keys->cipher[k], 64, out,
					     keys->tag[k]) != 0;
			bad += memcmp(out, zero, 64) != 0;
		}
	}
	return (void *)bad;
}

/* Makes and frees keys of its own meanwhile, so that contexts are cleared under other threads' feet. */
static void *free_keys(void *arg)
{
	struct cmek_secret *key;
	uint8_t out[16], tag[16];
	uint8_t nonce[12] = { 0 };
	long bad = 0;
	int i;

	(void)arg;
	for (i = 0; i < 2000; i++) {
		if (cmek_secret_new_random(CMEK_KEY_CONTENT, 32, &key, NULL))
			return (void *)1L;
		bad += cmek_gcm_seal(key, CMEK_KEY_CONTENT, nonce, NULL, 0, "sixteen bytes...", 16, out, tag) != 0;
		cmek_secret_free(key);
	}
	return (void *)bad;
}

START_TEST(gcm_many_keys_and_threads)
{
	static const uint8_t nonce[12] = { 9 }, zero[64];
	pthread_t thread[4];
	struct keys keys;
	void *bad;
	int i;

	for (i = 0; i < N_KEYS; i++) {
		ck_assert_int_eq(cmek_secret_new_random(CMEK_KEY_CONTENT, 32, &keys.key[i], NULL), 0);
		ck_assert_int_eq(cmek_gcm_seal(keys.key[i], CMEK_KEY_CONTENT, nonce, NULL, 0, zero, 64, keys.cipher[i],
					       keys.tag[i]), 0);
	}
	for (i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, i < 3 ? churn : free_keys, &keys), 0);
	for (i = 0; i < 4; i++) {
		ck_assert_int_eq(pthread_join(thread[i], &bad), 0);
		ck_assert_ptr_null(bad);
	}
	for (i = 0; i < N_KEYS; i++)
		cmek_secret_free(keys.key[i]);
}
END_TEST

START_TEST(gcm_large_and_empty)
{
	size_t len = (1u << 20) + 5;
	uint8_t *text = malloc(len), *out = malloc(len);
	uint8_t nonce[12] = { 7 }, tag[16];
	struct cmek_secret *key = NULL;
	struct iovec too_long = { text, (size_t)INT32_MAX + 1 };

	memset(text, 0x5a, len);
	ck_assert_int_eq(cmek_secret_new_random(CMEK_KEY_XATTR, 32, &key, NULL), 0);
	ck_assert_int_eq(cmek_gcm_seal(key, CMEK_KEY_XATTR, nonce, NULL, 0, text, len, out, tag), 0);
	ck_assert_int_eq(cmek_gcm_open(key, CMEK_KEY_XATTR, nonce, NULL, 0, out, len, out, tag), 0);
	ck_assert_mem_eq(out, text, len);
	ck_assert_int_eq(cmek_gcm_seal(key, CMEK_KEY_XATTR, nonce, NULL, 0, NULL, 0, NULL, tag), 0);
	ck_assert_int_eq(cmek_gcm_open(key, CMEK_KEY_XATTR, nonce, NULL, 0, NULL, 0, NULL, tag), 0);
	tag[15] ^= 1;
	ck_assert_int_eq(cmek_gcm_open(key, CMEK_KEY_XATTR, nonce, NULL, 0, NULL, 0, NULL, tag), -EBADMSG);
	ck_assert_int_eq(cmek_gcm_seal(key, CMEK_KEY_XATTR, nonce, &too_long, 1, text, 1, out, tag), -EINVAL);
	ck_assert_int_eq(cmek_gcm_open(key, CMEK_KEY_XATTR, nonce, NULL, 0, text, too_long.iov_len, out, tag), -EINVAL);
	cmek_secret_free(key);
	free(text);
	free(out);
}
END_TEST

static void seal_with_wrong_purpose(void *arg)
{
	uint8_t nonce[12] = { 0 }, byte = 0, tag[16];

	(void)cmek_gcm_seal(arg, CMEK_KEY_JOURNAL, nonce, NULL, 0, &byte, 1, &byte, tag); /* aborts */
}

START_TEST(gcm_wrong_purpose)
{
	struct cmek_secret *key = secret_of_hex(CMEK_KEY_CONTENT, ZERO_KEY);

	unit_assert_aborts(seal_with_wrong_purpose, key);
	cmek_secret_free(key);
}
END_TEST

/* A child of fork has the caches of its parent and goes on with them. */
static void open_in_child(void *arg)
{
	struct keys *keys = arg;

	if (churn(keys) || free_keys(NULL))
		_exit(1);
	cmek_secret_free(keys->key[0]);
}

START_TEST(gcm_after_fork)
{
	static const uint8_t nonce[12] = { 9 }, zero[64];
	struct keys keys;
	int i;

	for (i = 0; i < N_KEYS; i++) {
		ck_assert_int_eq(cmek_secret_new_random(CMEK_KEY_CONTENT, 32, &keys.key[i], NULL), 0);
		ck_assert_int_eq(cmek_gcm_seal(keys.key[i], CMEK_KEY_CONTENT, nonce, NULL, 0, zero, 64, keys.cipher[i],
					       keys.tag[i]), 0);
	}
	ck_assert_int_eq(unit_in_child(open_in_child, &keys), 0);
	ck_assert_ptr_null(churn(&keys));
	for (i = 0; i < N_KEYS; i++)
		cmek_secret_free(keys.key[i]);
}
END_TEST

/* ---- AES-256-SIV ---- */

static const struct {
	const char *name, *key, *ad[4], *plain, *sealed;
} siv_rows[] = {
	/* RFC 5297 A.1 with a longer key: OpenSSL, test/recipes/30-test_evp_data/evpciph_aes_siv.txt. */
	{ "openssl",
	  "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
	  "f0f1f2f3f4f5f6f7f8f9fafbfcfdfefffffefdfcfbfaf9f8f7f6f5f4f3f2f1f0",
	  { "101112131415161718191a1b1c1d1e1f2021222324252627" },
	  "112233445566778899aabbccddee",
	  "724dfb2eaf94dbb19b0ba3a299a0801ef3b05a55498ec2552690b89810e4" },
#include "tests/vectors/aes256_siv.h"
};

START_TEST(siv_vector)
{
	struct cmek_secret *key = secret_of_hex(CMEK_KEY_NAME, siv_rows[_i].key);
	uint8_t ad[4][64], plain[256], sealed[272], out[272];
	size_t len = unit_hex(siv_rows[_i].plain, plain, sizeof(plain)), bit;
	struct iovec iov[4];
	int n = 0, round;

	for (; n < 4 && siv_rows[_i].ad[n]; n++) {
		iov[n].iov_base = ad[n];
		iov[n].iov_len = unit_hex(siv_rows[_i].ad[n], ad[n], sizeof(ad[n]));
	}
	ck_assert_uint_eq(unit_hex(siv_rows[_i].sealed, sealed, sizeof(sealed)), len + CMEK_SIV_LEN);
	for (round = 0; round < 3; round++) {
		ck_assert_int_eq(cmek_siv_seal(key, CMEK_KEY_NAME, iov, n, plain, len, out), 0);
		ck_assert_mem_eq(out, sealed, len + CMEK_SIV_LEN);
		ck_assert_int_eq(cmek_siv_open(key, CMEK_KEY_NAME, iov, n, sealed, len + CMEK_SIV_LEN, out), 0);
		ck_assert_mem_eq(out, plain, len);
	}
	for (bit = 0; bit < (len + CMEK_SIV_LEN) * 8; bit++) {
		sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
		memset(out, 0xee, sizeof(out));
		ck_assert_int_eq(cmek_siv_open(key, CMEK_KEY_NAME, iov, n, sealed, len + CMEK_SIV_LEN, out), -EBADMSG);
		ck_assert(out[0] == 0 && !memcmp(out, out + 1, len - 1));
		sealed[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	for (round = 0; round < n; round++) {
		ad[round][0] ^= 0x80;
		ck_assert_int_eq(cmek_siv_open(key, CMEK_KEY_NAME, iov, n, sealed, len + CMEK_SIV_LEN, out), -EBADMSG);
		ad[round][0] ^= 0x80;
	}
	cmek_secret_free(key);
}
END_TEST

START_TEST(siv_bounds)
{
	struct cmek_secret *key = NULL;
	uint8_t buf[64] = { 0 }, out[64];
	struct iovec empty = { buf, 0 };

	ck_assert_int_eq(cmek_secret_new_random(CMEK_KEY_SYMLINK, 64, &key, NULL), 0);
	ck_assert_int_eq(cmek_siv_open(key, CMEK_KEY_SYMLINK, NULL, 0, buf, 0, out), -EBADMSG);
	ck_assert_int_eq(cmek_siv_open(key, CMEK_KEY_SYMLINK, NULL, 0, buf, CMEK_SIV_LEN, out), -EBADMSG);
	ck_assert_int_eq(cmek_siv_open(key, CMEK_KEY_SYMLINK, NULL, 0, buf, CMEK_SIV_LEN + 1, out), -EBADMSG);
	ck_assert_int_eq(cmek_siv_seal(key, CMEK_KEY_SYMLINK, NULL, 0, buf, 0, out), -EINVAL);
	ck_assert_int_eq(cmek_siv_seal(key, CMEK_KEY_SYMLINK, &empty, 1, buf, 1, out), -EINVAL);
	cmek_secret_free(key);
}
END_TEST

/* More keys than contexts, each answer compared with its first. */
START_TEST(siv_many_keys)
{
	struct cmek_secret *key[N_KEYS];
	uint8_t sealed[N_KEYS][32], out[32];
	struct iovec ad = { (void *)"directory", 9 };
	unsigned seed = 1;
	int i, k;

	for (i = 0; i < N_KEYS; i++) {
		ck_assert_int_eq(cmek_secret_new_random(CMEK_KEY_NAME, 64, &key[i], NULL), 0);
		ck_assert_int_eq(cmek_siv_seal(key[i], CMEK_KEY_NAME, &ad, 1, "a file's name...", 16, sealed[i]), 0);
	}
	for (i = 0; i < 1000; i++) {
		k = (int)(rand_r(&seed) >> 4) % N_KEYS;
		ck_assert_int_eq(cmek_siv_seal(key[k], CMEK_KEY_NAME, &ad, 1, "a file's name...", 16, out), 0);
		ck_assert_mem_eq(out, sealed[k], 32);
		ck_assert_int_eq(cmek_siv_open(key[k], CMEK_KEY_NAME, &ad, 1, sealed[k], 32, out), 0);
		ck_assert_int_eq(cmek_siv_open(key[(k + 1) % N_KEYS], CMEK_KEY_NAME, &ad, 1, sealed[k], 32, out),
				 -EBADMSG);
	}
	for (i = 0; i < N_KEYS; i++)
		cmek_secret_free(key[i]);
}
END_TEST

/* ---- HKDF-SHA256: RFC 5869, appendix A ---- */

static const struct {
	const char *name, *ikm, *salt, *info, *okm;
} hkdf_rows[] = {
	{ "A.1", "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9",
	  "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865" },
	{ "A.2",
	  "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f"
	  "303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f",
	  "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f"
	  "909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf",
	  "b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf"
	  "e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
	  "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
	  "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87" },
	{ "A.3", "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "", "",
	  "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8" },
};

START_TEST(hkdf_vector)
{
	struct cmek_secret *ikm = secret_of_hex(CMEK_KEY_DEK, hkdf_rows[_i].ikm), *okm = NULL;
	uint8_t salt[96], info[96], want[96];
	size_t salt_len = unit_hex(hkdf_rows[_i].salt, salt, sizeof(salt));
	size_t info_len = unit_hex(hkdf_rows[_i].info, info, sizeof(info));
	size_t len = unit_hex(hkdf_rows[_i].okm, want, sizeof(want));
	struct cmek_error err = CMEK_ERROR_INIT;

	ck_assert_int_eq(cmek_hkdf(ikm, CMEK_KEY_DEK, salt_len ? salt : NULL, salt_len, info_len ? info : NULL,
				   info_len, CMEK_KEY_CONTENT, len, &okm, &err), 0);
	ck_assert_uint_eq(cmek_secret_len(okm), len);
	ck_assert_mem_eq(cmek_secret_bytes(okm, CMEK_KEY_CONTENT), want, len);
	ck_assert(!cmek_error_is_set(&err));
	cmek_secret_free(okm);
	cmek_secret_free(ikm);
}
END_TEST

/* RFC 5869 s2.3: at most 255 times the hash's length. */
START_TEST(hkdf_too_long)
{
	struct cmek_secret *ikm = secret_of_hex(CMEK_KEY_DEK, ZERO_KEY), *okm = NULL;
	struct cmek_error err = CMEK_ERROR_INIT;

	ck_assert_int_eq(cmek_hkdf(ikm, CMEK_KEY_DEK, NULL, 0, "x", 1, CMEK_KEY_TEXT, 255 * 32 + 1, &okm, &err), -EIO);
	ck_assert_ptr_null(okm);
	ck_assert_int_eq(err.kind, CMEK_E_SYSTEM);
	ck_assert_ptr_nonnull(strstr(err.text, "HKDF-SHA256 failed in OpenSSL: "));
	cmek_secret_free(ikm);
}
END_TEST

/* ---- HMAC-SHA256: RFC 4231 (case 5 is of a truncated MAC) ---- */

#define AA_20 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define AA_131 AA_20 AA_20 AA_20 AA_20 AA_20 AA_20 "aaaaaaaaaaaaaaaaaaaaaa"
#define DD_10 "dddddddddddddddddddd"
#define CD_10 "cdcdcdcdcdcdcdcdcdcd"

static const struct {
	const char *name, *key, *data, *mac;
} hmac_rows[] = {
	{ "1", "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", "4869205468657265",
	  "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7" },
	{ "2", "4a656665", "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
	  "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843" },
	{ "3", AA_20, DD_10 DD_10 DD_10 DD_10 DD_10,
	  "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe" },
	{ "4", "0102030405060708090a0b0c0d0e0f10111213141516171819", CD_10 CD_10 CD_10 CD_10 CD_10,
	  "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b" },
	{ "6", AA_131,
	  "54657374205573696e67204c6172676572205468616e20426c6f636b2d53697a65204b6579202d2048617368204b657920"
	  "4669727374",
	  "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54" },
	{ "7", AA_131,
	  "5468697320697320612074657374207573696e672061206c6172676572207468616e20626c6f636b2d73697a65206b657920616e6420"
	  "61206c6172676572207468616e20626c6f636b2d73697a6520646174612e20546865206b6579206e6565647320746f20626520686173"
	  "686564206265666f7265206265696e6720757365642062792074686520484d414320616c676f726974686d2e",
	  "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2" },
};

START_TEST(hmac_vector)
{
	struct cmek_secret *key = secret_of_hex(CMEK_KEY_XATTR_NAME, hmac_rows[_i].key);
	uint8_t data[160], want[32], mac[32];
	size_t len = unit_hex(hmac_rows[_i].data, data, sizeof(data));
	struct iovec in[3] = { { data, 3 }, { data + 3, 0 }, { data + 3, len - 3 } };

	unit_hex(hmac_rows[_i].mac, want, sizeof(want));
	ck_assert_int_eq(cmek_hmac(key, CMEK_KEY_XATTR_NAME, in, 3, mac), 0);
	ck_assert_mem_eq(mac, want, sizeof(want));
	cmek_secret_free(key);
}
END_TEST

/* ---- SHA-256: FIPS 180-2, appendix B, and the empty message ---- */

static const struct {
	const char *name, *text, *digest;
} sha256_rows[] = {
	{ "empty", "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
	{ "B.1", "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
	{ "B.2", "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
	  "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
};

START_TEST(sha256_vector)
{
	const char *text = sha256_rows[_i].text;
	size_t len = strlen(text);
	struct iovec in[2] = { { (void *)text, len / 3 }, { (void *)(text + len / 3), len - len / 3 } };
	uint8_t want[32], digest[32];

	unit_hex(sha256_rows[_i].digest, want, sizeof(want));
	ck_assert_int_eq(cmek_sha256(in, 2, digest), 0);
	ck_assert_mem_eq(digest, want, sizeof(want));
}
END_TEST

/* ---- scrypt: RFC 7914 s12; a key of 32 bytes is the first half of the RFC's 64 (PBKDF2's first block) ---- */

static const struct {
	const char *passphrase, *salt;
	uint64_t n;
	uint32_t r, p;
	const char *key;
} scrypt_rows[] = {
	{ "password", "NaCl", 1024, 8, 16, "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162" },
	{ "pleaseletmein", "SodiumChloride", 16384, 8, 1,
	  "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2" },
};

START_TEST(scrypt_vector)
{
	struct cmek_secret *passphrase, *key = NULL;
	uint8_t want[32];

	passphrase = secret_of(CMEK_KEY_TEXT, scrypt_rows[_i].passphrase, strlen(scrypt_rows[_i].passphrase));
	unit_hex(scrypt_rows[_i].key, want, sizeof(want));
	ck_assert_int_eq(cmek_scrypt(passphrase, scrypt_rows[_i].salt, strlen(scrypt_rows[_i].salt), scrypt_rows[_i].n,
				     scrypt_rows[_i].r, scrypt_rows[_i].p, &key, NULL), 0);
	ck_assert_uint_eq(cmek_secret_len(key), 32);
	ck_assert_mem_eq(cmek_secret_bytes(key, CMEK_KEY_STORE), want, 32);
	cmek_secret_free(key);
	cmek_secret_free(passphrase);
}
END_TEST

static const struct {
	uint64_t n;
	uint32_t r, p;
	int ret;
	enum cmek_kind kind;
} scrypt_bad_rows[] = {
	{ 0, 8, 1, -EINVAL, CMEK_E_BAD_FORMAT },
	{ 1, 8, 1, -EINVAL, CMEK_E_BAD_FORMAT },
	{ 1000, 8, 1, -EINVAL, CMEK_E_BAD_FORMAT },
	{ 1024, 0, 1, -EINVAL, CMEK_E_BAD_FORMAT },
	{ 1024, 8, 0, -EINVAL, CMEK_E_BAD_FORMAT },
	{ 1u << 21, 8, 1, -ENOMEM, CMEK_E_LIMIT },
	{ 1u << 20, 9, 1, -ENOMEM, CMEK_E_LIMIT },
	{ 16, 1, 1u << 24, -ENOMEM, CMEK_E_LIMIT },
	{ UINT64_C(1) << 63, 8, 1, -ENOMEM, CMEK_E_LIMIT },
	{ UINT64_C(1) << 57, UINT32_MAX, UINT32_MAX, -ENOMEM, CMEK_E_LIMIT },
};

START_TEST(scrypt_bad)
{
	struct cmek_secret *passphrase = secret_of(CMEK_KEY_TEXT, "x", 1), *key = NULL;
	struct cmek_error err = CMEK_ERROR_INIT;

	ck_assert_int_eq(cmek_scrypt(passphrase, "salt", 4, scrypt_bad_rows[_i].n, scrypt_bad_rows[_i].r,
				     scrypt_bad_rows[_i].p, &key, &err), scrypt_bad_rows[_i].ret);
	ck_assert_int_eq(err.kind, scrypt_bad_rows[_i].kind);
	ck_assert_ptr_null(key);
	cmek_secret_free(passphrase);
}
END_TEST

/* ---- random, comparison ---- */

START_TEST(random_and_equal)
{
	uint8_t a[1000] = { 0 }, b[1000] = { 0 };
	int i, zeros = 0;

	cmek_random(a, 0);
	cmek_random(a, sizeof(a));
	cmek_random(b, sizeof(b));
	ck_assert(!cmek_equal(a, b, sizeof(a)));
	for (i = 0; i < 1000; i++)
		zeros += a[i] == 0;
	ck_assert_int_lt(zeros, 50);
	memcpy(b, a, sizeof(a));
	ck_assert(cmek_equal(a, b, sizeof(a)));
	b[999] ^= 1;
	ck_assert(!cmek_equal(a, b, sizeof(a)));
	ck_assert(cmek_equal(a, b, 999));
	ck_assert(cmek_equal(NULL, NULL, 0));
}
END_TEST

static void *seal_once(void *arg)
{
	uint8_t nonce[CMEK_NONCE_LEN] = { 0 }, text[100] = { 0 }, tag[CMEK_TAG_LEN];

	ck_assert_int_eq(cmek_gcm_seal(arg, CMEK_KEY_CONTENT, nonce, NULL, 0, text, sizeof(text), text, tag), 0);
	return NULL;
}

/* Also what a thread did that has ended, and what did not authenticate. */
START_TEST(counts)
{
	uint8_t nonce[CMEK_NONCE_LEN] = { 0 }, text[50] = { 0 }, tag[CMEK_TAG_LEN] = { 0 }, siv[CMEK_SIV_LEN + 10];
	struct cmek_aead_counts before, after;
	struct cmek_secret *key = NULL, *siv_key = NULL;
	pthread_t thread;

	ck_assert_int_eq(cmek_secret_new_random(CMEK_KEY_CONTENT, 32, &key, NULL), 0);
	ck_assert_int_eq(cmek_secret_new_random(CMEK_KEY_NAME, 64, &siv_key, NULL), 0);
	cmek_crypto_counts(&before);
	ck_assert_int_eq(pthread_create(&thread, NULL, seal_once, key), 0);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	ck_assert_int_eq(cmek_gcm_open(key, CMEK_KEY_CONTENT, nonce, NULL, 0, text, sizeof(text), text, tag), -EBADMSG);
	ck_assert_int_eq(cmek_siv_seal(siv_key, CMEK_KEY_NAME, NULL, 0, text, 10, siv), 0);
	ck_assert_int_eq(cmek_siv_open(siv_key, CMEK_KEY_NAME, NULL, 0, siv, sizeof(siv), text), 0);
	cmek_crypto_counts(&after);
	ck_assert_uint_eq(after.of[CMEK_AEAD_GCM].seals - before.of[CMEK_AEAD_GCM].seals, 1);
	ck_assert_uint_eq(after.of[CMEK_AEAD_GCM].sealed_bytes - before.of[CMEK_AEAD_GCM].sealed_bytes, 100);
	ck_assert_uint_eq(after.of[CMEK_AEAD_GCM].opens - before.of[CMEK_AEAD_GCM].opens, 1);
	ck_assert_uint_eq(after.of[CMEK_AEAD_GCM].opened_bytes - before.of[CMEK_AEAD_GCM].opened_bytes, 50);
	ck_assert_uint_eq(after.of[CMEK_AEAD_GCM].failures - before.of[CMEK_AEAD_GCM].failures, 1);
	ck_assert_uint_eq(after.of[CMEK_AEAD_SIV].sealed_bytes - before.of[CMEK_AEAD_SIV].sealed_bytes, 10);
	ck_assert_uint_eq(after.of[CMEK_AEAD_SIV].opened_bytes - before.of[CMEK_AEAD_SIV].opened_bytes, 10);
	ck_assert_uint_eq(after.of[CMEK_AEAD_SIV].failures, before.of[CMEK_AEAD_SIV].failures);
	cmek_secret_free(key);
	cmek_secret_free(siv_key);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("crypto");
	TCase *tc = tcase_create("gcm");

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, gcm_vector, 0, UNIT_ROWS(gcm_rows));
	tcase_add_test(tc, gcm_tampered);
	tcase_add_test(tc, gcm_many_keys_and_threads);
	tcase_add_test(tc, gcm_large_and_empty);
	tcase_add_test(tc, gcm_wrong_purpose);
	tcase_add_test(tc, gcm_after_fork);
	tcase_add_test(tc, counts);
	suite_add_tcase(s, tc);
	tc = tcase_create("siv");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, siv_vector, 0, UNIT_ROWS(siv_rows));
	tcase_add_test(tc, siv_bounds);
	tcase_add_test(tc, siv_many_keys);
	suite_add_tcase(s, tc);
	tc = tcase_create("derivation");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, hkdf_vector, 0, UNIT_ROWS(hkdf_rows));
	tcase_add_test(tc, hkdf_too_long);
	tcase_add_loop_test(tc, hmac_vector, 0, UNIT_ROWS(hmac_rows));
	tcase_add_loop_test(tc, sha256_vector, 0, UNIT_ROWS(sha256_rows));
	tcase_add_loop_test(tc, scrypt_vector, 0, UNIT_ROWS(scrypt_rows));
	tcase_add_loop_test(tc, scrypt_bad, 0, UNIT_ROWS(scrypt_bad_rows));
	tcase_add_test(tc, random_and_equal);
	suite_add_tcase(s, tc);
	return unit_run(s);
}
