/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_VOLUME_KEYRING_H
#define CMEK_VOLUME_KEYRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"

/*
 * The unlocked keys of one volume: KEK, DEKs, and what is derived from them (doc/format.md section 3).
 * Filled once by unlock (or mkfs), then shared by all threads of the mount. Thread-safe.
 */
#define CMEK_SALT_LEN 16
#define CMEK_FILE_ID_LEN 16
#define CMEK_DIR_ID_LEN 16
#define CMEK_COUNTER_MAX ((UINT64_C(1) << 48) - 1)

enum cmek_dek_state { CMEK_DEK_ACTIVE, CMEK_DEK_DECRYPT_ONLY, CMEK_DEK_RETIRED, CMEK_DEK_DESTROYED };

/* Nonce domains, the first byte of every GCM nonce. */
enum cmek_domain { CMEK_DOMAIN_BLOCK = 1, CMEK_DOMAIN_MAP = 2, CMEK_DOMAIN_JOURNAL = 3, CMEK_DOMAIN_XATTR = 4 };

struct cmek_keyring;

/* Takes over *kek (nulled). The ring has no DEK yet. */
int cmek_keyring_new(const uint8_t volume[16], struct cmek_secret **kek, struct cmek_keyring **ret_ring,
		     struct cmek_error *err);
void cmek_keyring_free(struct cmek_keyring *ring); /* wipes; NULL allowed */

/*
 * Locking a volume: wipes every key the ring has; until it is filled again all that needs one says -EKEYREVOKED, and
 * cmek_keyring_kek() and cmek_keyring_header_mac() are NULL; these two must not be in use. Keys that others have references
 * to last until they give them back.
 */
void cmek_keyring_wipe(struct cmek_keyring *ring);
/*
 * Takes over what *fresh has (freed and nulled), which was unlocked anew for the same volume, into a ring that was wiped.
 * The next seal draws a new salt; counters and epochs go on.
 */
void cmek_keyring_refill(struct cmek_keyring *ring, struct cmek_keyring **fresh);
const struct cmek_secret *cmek_keyring_kek(const struct cmek_keyring *ring);        /* borrowed */
const struct cmek_secret *cmek_keyring_header_mac(const struct cmek_keyring *ring); /* borrowed */

/* A DEK's wrapped form: nonce 12 | ciphertext 32 | tag 16. */
#define CMEK_DEK_WRAPPED_LEN 60
/* Makes a new random DEK with this id and adds it; wrapped gets its form for the header. */
int cmek_keyring_make_dek(struct cmek_keyring *ring, uint16_t id, uint32_t domain, enum cmek_dek_state state,
			  uint8_t wrapped[CMEK_DEK_WRAPPED_LEN], struct cmek_error *err);
/*
 * Unwraps and adds one: -EBADMSG (tampered) when it does not fit; wrapped is not looked at (may be NULL) when the state
 * is destroyed. -EEXIST for an id the ring has, or a second active one.
 */
int cmek_keyring_add_dek(struct cmek_keyring *ring, uint16_t id, uint32_t domain, enum cmek_dek_state state,
			 const uint8_t wrapped[CMEK_DEK_WRAPPED_LEN], struct cmek_error *err);

/*
 * A DEK's wrapped form under another KEK of the same volume: opens `wrapped` with from's KEK, seals it anew with to's.
 * Neither ring gets the DEK. -EBADMSG (tampered) when it does not open.
 */
int cmek_keyring_rewrap_dek(const struct cmek_keyring *from, const struct cmek_keyring *to, uint16_t id,
			    uint32_t domain, const uint8_t wrapped[CMEK_DEK_WRAPPED_LEN],
			    uint8_t ret_wrapped[CMEK_DEK_WRAPPED_LEN], struct cmek_error *err);

/*
 * Takes over what a newer header has: *from (freed and nulled, on success) was unlocked from it. DEKs that the ring does
 * not have are added, the active one becomes that of *from, and the next seal is under it, with a new salt. What the ring
 * has stays; but KEK and header MAC key are replaced, and must not be in use
 * meanwhile. -EINVAL (bad-format) when *from lacks an active DEK, or the one that is active here; -EEXIST when a DEK of the
 * same id is another one.
 */
int cmek_keyring_adopt(struct cmek_keyring *ring, struct cmek_keyring **from, struct cmek_error *err);

/* The DEK that new writes use, 0 if there is none. */
uint16_t cmek_keyring_active_dek(const struct cmek_keyring *ring);
/* The decrypt-only ones: how many there are, and the ids of the first `max` of them. */
size_t cmek_keyring_old_deks(const struct cmek_keyring *ring, uint16_t *ret_ids, size_t max);
/*
 * From now on whatever asks for this one, which must not be active, is refused with -EKEYREVOKED, and it is wiped, with the
 * keys that the ring has derived from it: each when its last user gives it back. No such DEK: nothing happens.
 */
void cmek_keyring_retire_dek(struct cmek_keyring *ring, uint16_t id);

/*
 * The right to seal `n` times: consecutive counters first..first+n-1 under this DEK and session salt, never given out
 * again. The salt is drawn at the first call after a fork (detected), and anew every hour and every 2^32 seals.
 * -EKEYREVOKED when there is no active DEK, -EINVAL for n == 0.
 */
struct cmek_seal_right {
	uint16_t dek;
	uint8_t salt[CMEK_SALT_LEN];
	uint64_t first;
	uint64_t epoch; /* changes when dek or salt does: callers cache derived keys by it. Never 0. */
};
int cmek_keyring_seal_right(struct cmek_keyring *ring, uint32_t n, struct cmek_seal_right *ret_right);
/*
 * So many bytes of text are sealed by such a right under this DEK: counted since the ring was made, over locking and
 * unlocking, for the first CMEK_DEK_USES_MAX DEKs that are used. cmek_keyring_sealed_bytes(): 0 for all others.
 */
#define CMEK_DEK_USES_MAX 64
void cmek_keyring_count_sealed(struct cmek_keyring *ring, uint16_t dek, uint64_t bytes);
uint64_t cmek_keyring_sealed_bytes(const struct cmek_keyring *ring, uint16_t dek);
/* The next seal draws a new salt: after a replay, an unlock, a thaw. */
void cmek_keyring_new_session(struct cmek_keyring *ring);
/* For tests: as if `seconds` had passed and `seals` had been given out since the salt was drawn. */
void cmek_keyring_age_session(struct cmek_keyring *ring, uint64_t seconds, uint64_t seals);

/* Nonce = domain | 5 zero bytes | counter (6 bytes, little-endian). */
void cmek_keyring_nonce(enum cmek_domain domain, uint64_t counter, uint8_t nonce[12]);

/*
 * Derived keys (HKDF-SHA256, doc/format.md section 3). -ENOKEY: no such DEK in the header; -EKEYREVOKED: retired or
 * destroyed; -EBADMSG: an all-zero salt. Every key comes with a reference that the caller gives back by cmek_secret_free();
 * name, symlink and xattr-name keys are derived once.
 */
int cmek_keyring_content_key(struct cmek_keyring *ring, uint16_t dek, const uint8_t salt[CMEK_SALT_LEN],
			     const uint8_t file_id[CMEK_FILE_ID_LEN], struct cmek_secret **ret_key);
int cmek_keyring_journal_key(struct cmek_keyring *ring, uint16_t dek, const uint8_t salt[CMEK_SALT_LEN],
			     struct cmek_secret **ret_key);
int cmek_keyring_xattr_key(struct cmek_keyring *ring, uint16_t dek, const uint8_t salt[CMEK_SALT_LEN],
			   struct cmek_secret **ret_key);
int cmek_keyring_name_key(struct cmek_keyring *ring, uint16_t dek, struct cmek_secret **ret_key);
int cmek_keyring_symlink_key(struct cmek_keyring *ring, uint16_t dek, struct cmek_secret **ret_key);
int cmek_keyring_xattr_name_key(struct cmek_keyring *ring, uint16_t dek, struct cmek_secret **ret_key);

#endif
