/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Records what went wrong: kind, errno and one sentence. Knows nothing of who reads it: advice, exit codes and output
 * belong to the tools.
 */
#include "config.h"

#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const kind_names[CMEK_E_KIND_MAX] = {
	[CMEK_E_NONE] = "none",
	[CMEK_E_USAGE] = "usage",
	[CMEK_E_SYSTEM] = "system",
	[CMEK_E_NOT_FOUND] = "not-found",
	[CMEK_E_EXISTS] = "exists",
	[CMEK_E_BUSY] = "busy",
	[CMEK_E_DENIED] = "denied",
	[CMEK_E_EXPIRED] = "expired",
	[CMEK_E_KEY_DISABLED] = "key-disabled",
	[CMEK_E_PENDING_DELETION] = "pending-deletion",
	[CMEK_E_KEY_DESTROYED] = "key-destroyed",
	[CMEK_E_UNREACHABLE] = "unreachable",
	[CMEK_E_THROTTLED] = "throttled",
	[CMEK_E_BAD_FORMAT] = "bad-format",
	[CMEK_E_TAMPERED] = "tampered",
	[CMEK_E_MISMATCH] = "mismatch",
	[CMEK_E_UNSUPPORTED] = "unsupported",
	[CMEK_E_LIMIT] = "limit",
};

/* A failure must never turn into a 0 because somebody's errno was 0 by the time it was reported. */
static int sane_errnum(int errnum)
{
	return errnum > 0 ? errnum : EIO;
}

static void record(struct cmek_error *err, enum cmek_kind kind, int errnum, const char *fmt, va_list ap)
{
	err->kind = kind > CMEK_E_NONE && kind < CMEK_E_KIND_MAX ? kind : CMEK_E_SYSTEM;
	err->err = errnum;
	if (vsnprintf(err->text, sizeof(err->text), fmt, ap) < 0)
		err->text[0] = '\0';
}

/* Puts piece at text[used], and cuts it at the end of the room. */
static void append(struct cmek_error *err, size_t used, const char *piece)
{
	size_t room = sizeof(err->text) - 1 - used;
	size_t len = strnlen(piece, room);

	memcpy(err->text + used, piece, len);
	err->text[used + len] = '\0';
}

int cmek_error_set(struct cmek_error *err, enum cmek_kind kind, int errnum, const char *fmt, ...)
{
	va_list ap;

	errnum = sane_errnum(errnum);
	if (err && !cmek_error_is_set(err)) {
		va_start(ap, fmt);
		record(err, kind, errnum, fmt, ap);
		va_end(ap);
	}
	return -errnum;
}

int cmek_error_sys(struct cmek_error *err, int errnum, const char *fmt, ...)
{
	char buf[128];
	const char *reason;
	size_t used;
	va_list ap;

	errnum = sane_errnum(errnum);
	if (err && !cmek_error_is_set(err)) {
		va_start(ap, fmt);
		record(err, CMEK_E_SYSTEM, errnum, fmt, ap);
		va_end(ap);
		reason = strerror_r(errnum, buf, sizeof(buf));
		used = strlen(err->text);
		/* What failed may be cut short, why it failed may not. */
		if (used > sizeof(err->text) - sizeof(buf) - 3)
			used = sizeof(err->text) - sizeof(buf) - 3;
		append(err, used, ": ");
		append(err, used + 2, reason);
	}
	return -errnum;
}

void cmek_error_prefix(struct cmek_error *err, const char *fmt, ...)
{
	char text[CMEK_ERROR_TEXT_MAX];
	size_t used;
	va_list ap;
	int n;

	if (!cmek_error_is_set(err))
		return;
	memcpy(text, err->text, sizeof(text));
	va_start(ap, fmt);
	n = vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	if (n < 0) {
		memcpy(err->text, text, sizeof(text));
		return;
	}
	/* A prefix longer than half of the room (a path) is cut rather than the reason behind it. */
	used = (size_t)n < sizeof(err->text) / 2 ? (size_t)n : sizeof(err->text) / 2;
	append(err, used, ": ");
	append(err, used + 2, text);
}

void cmek_error_clear(struct cmek_error *err)
{
	if (!err)
		return;
	err->kind = CMEK_E_NONE;
	err->err = 0;
	err->text[0] = '\0';
}

const char *cmek_kind_name(enum cmek_kind kind)
{
	if ((int)kind < 0 || kind >= CMEK_E_KIND_MAX)
		return "unknown";
	return kind_names[kind];
}
