/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_BASE_SECRET_H
#define CMEK_BASE_SECRET_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/*
 * Key bytes live here and nowhere else: in locked pages that are left out of dumps and wiped when freed.
 * A secret carries its purpose; reading it names the purpose again, so a name key can never be used as a content key.
 *
 * Thread-safe: allocation and free. A secret itself is immutable once filled, so that threads may share it.
 */
enum cmek_purpose {
	CMEK_KEY_KEK = 1,    /* 32 bytes, wraps the DEK table */
	CMEK_KEY_WRAP,       /* 32, HKDF(KEK, "wrap") */
	CMEK_KEY_HEADER_MAC, /* 32, HKDF(KEK, "header mac") */
	CMEK_KEY_DEK,        /* 32 */
	CMEK_KEY_CONTENT,    /* 32, AES-256-GCM, one file in one session */
	CMEK_KEY_JOURNAL,    /* 32, AES-256-GCM */
	CMEK_KEY_XATTR,      /* 32, AES-256-GCM */
	CMEK_KEY_NAME,       /* 64, AES-256-SIV */
	CMEK_KEY_SYMLINK,    /* 64, AES-256-SIV */
	CMEK_KEY_XATTR_NAME, /* 32, HMAC-SHA256 */
	CMEK_KEY_STORE,      /* local key store: master and key material */
	CMEK_KEY_TEXT        /* passphrases, tokens, bodies that hold secrets; any length, a NUL follows */
};

#define CMEK_SECRET_MAX (1u << 20)

struct cmek_secret;

/*
 * A zeroed secret of len bytes (1..CMEK_SECRET_MAX). The caller owns *ret_secret.
 * -ENOMEM; kind limit with -ENOMEM or -EPERM when pages can't be locked (see cmek_secret_allow_unlocked()).
 */
int cmek_secret_new(enum cmek_purpose purpose, size_t len, struct cmek_secret **ret_secret, struct cmek_error *err);
/* The same, filled from the system's random generator. */
int cmek_secret_new_random(enum cmek_purpose purpose, size_t len, struct cmek_secret **ret_secret,
			   struct cmek_error *err);
/* The same, filled with a copy of bytes; the caller still has to wipe the source. */
int cmek_secret_new_copy(enum cmek_purpose purpose, const void *bytes, size_t len, struct cmek_secret **ret_secret,
			 struct cmek_error *err);

/* Another owner of the same bytes / one owner less; the last one wipes and frees. NULL is allowed. */
struct cmek_secret *cmek_secret_ref(struct cmek_secret *s);
void cmek_secret_free(struct cmek_secret *s);

/* The bytes; aborts if the secret was made for another purpose. Valid while the caller owns a reference. */
const uint8_t *cmek_secret_bytes(const struct cmek_secret *s, enum cmek_purpose purpose);
uint8_t *cmek_secret_fill(struct cmek_secret *s, enum cmek_purpose purpose); /* writable, before sharing */
size_t cmek_secret_len(const struct cmek_secret *s);
/* A number no other secret of this process has or had: names a key in per-thread cipher caches. Never 0. */
uint64_t cmek_secret_serial(const struct cmek_secret *s);

/* Waives locking for the rest of the process (an explicit option of the user's, never a fall-back). */
void cmek_secret_allow_unlocked(void);
/* No core files, not dumpable, no ptrace by others of the same user. First thing every program does. 0 or -errno. */
int cmek_secret_harden_process(void);
/* explicit_bzero by another name, NULL allowed with n == 0. */
void cmek_wipe(void *p, size_t n);

#endif
