/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_AWS_SIGV4_H
#define CMEK_KMS_AWS_SIGV4_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"

/*
 * Signature Version 4 of AWS (IAM User Guide, "Create a signed AWS API request") for requests whose path and query need
 * no encoding. Pure; thread-safe.
 */
struct cmek_sigv4_header {
	const char *name;  /* lower case */
	const char *value; /* without blanks at its ends, and runs of them within */
};

struct cmek_sigv4_request {
	const char *method, *path, *query;       /* "POST", "/", "" */
	const struct cmek_sigv4_header *headers; /* all that are signed, by name; "host" and "x-amz-date" are among them */
	size_t n_headers;
	const void *body;
	size_t body_len;
	const char *region, *service;
	const char *date; /* YYYYMMDDTHHMMSSZ */
	const char *access_key;
	const struct cmek_secret *secret_key; /* CMEK_KEY_TEXT */
};

#define CMEK_SIGV4_DATE_LEN 17 /* with the NUL */
void cmek_sigv4_date(int64_t unix_seconds, char out[CMEK_SIGV4_DATE_LEN]);

/* The value of the Authorization header, in out of max bytes. -ENOSPC: does not fit; -ENOMEM, -EIO. */
#define CMEK_SIGV4_AUTHORIZATION_MAX 512
int cmek_sigv4_authorization(const struct cmek_sigv4_request *req, char *out, size_t max, struct cmek_error *err);

#endif
