/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_BASE_ERR_H
#define CMEK_BASE_ERR_H

#include <stdbool.h>

/*
 * What went wrong on a cold path, told once, where it happened.
 *
 * Every fallible function returns 0 or -errno. Functions on cold paths also take a struct cmek_error as their last
 * argument (NULL allowed). The first cmek_error_set() on a struct wins; callers add context with cmek_error_prefix().
 * The kind picks exit code and remedy in tools/tool_remedy.c; libraries never print and never exit.
 */
enum cmek_kind {
	CMEK_E_NONE = 0,
	CMEK_E_USAGE,            /* the command or option makes no sense */
	CMEK_E_SYSTEM,           /* a system call failed: errno says how */
	CMEK_E_NOT_FOUND,        /* volume, key, file: not there */
	CMEK_E_EXISTS,           /* already there: a volume, a key */
	CMEK_E_BUSY,             /* in use by another mount or program */
	CMEK_E_DENIED,           /* the KMS or the passphrase says no */
	CMEK_E_EXPIRED,          /* credentials expired, or there are none */
	CMEK_E_KEY_DISABLED,     /* the key exists and is disabled */
	CMEK_E_PENDING_DELETION, /* the key is scheduled for deletion, can still be restored */
	CMEK_E_KEY_DESTROYED,    /* the key material is gone */
	CMEK_E_UNREACHABLE,      /* no answer from the KMS */
	CMEK_E_THROTTLED,        /* the KMS asks to slow down */
	CMEK_E_BAD_FORMAT,       /* bytes that are not what they should be: damage */
	CMEK_E_TAMPERED,         /* bytes that fail authentication */
	CMEK_E_MISMATCH,         /* a pin names another key than the header */
	CMEK_E_UNSUPPORTED,      /* unknown feature, or the provider lacks the operation */
	CMEK_E_LIMIT,            /* a limit of the system (locked memory, descriptors) or of the format */
	CMEK_E_KIND_MAX
};

#define CMEK_ERROR_TEXT_MAX 1024

struct cmek_error {
	enum cmek_kind kind;
	int err; /* positive errno, never 0 once set */
	char text[CMEK_ERROR_TEXT_MAX];
};

/* A zeroed struct is "no error". */
#define CMEK_ERROR_INIT { CMEK_E_NONE, 0, { 0 } }

/* Records kind, errnum (positive) and the formatted text unless already set; returns -errnum. err may be NULL. */
int cmek_error_set(struct cmek_error *err, enum cmek_kind kind, int errnum, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* As cmek_error_set() with kind CMEK_E_SYSTEM, and ": strerror(errnum)" appended. */
int cmek_error_sys(struct cmek_error *err, int errnum, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "formatted text: " before the text of an error that is set; does nothing else. err may be NULL. */
void cmek_error_prefix(struct cmek_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Forgets the error, so that another attempt can record its own. err may be NULL. */
void cmek_error_clear(struct cmek_error *err);

static inline bool cmek_error_is_set(const struct cmek_error *err)
{
	return err != 0 && err->kind != CMEK_E_NONE;
}

/* The stable short name of a kind ("denied", "key-disabled", ...), as used in JSON output. Never NULL. */
const char *cmek_kind_name(enum cmek_kind kind);

#endif
