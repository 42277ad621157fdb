/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_PROBLEM_H
#define CMEK_KMS_PROBLEM_H

#include <stdbool.h>

#include "base/err.h"
#include "kms/kms_uri.h"

/*
 * What a service's refusal means: the only place where codes of services become kinds of errors. Thread-safe.
 */

/* What a reply that is not a success says of itself; printable ASCII, empty when it says nothing. */
struct cmek_problem {
	char code[96];     /* "ThrottlingException", "PERMISSION_DENIED", "KEY_NOT_FOUND_ERR" */
	char message[320]; /* for people */
};
/* Copies what is printable of a text of len bytes (a service's, so anything) to out, cut to max. */
void cmek_problem_text(char *out, size_t max, const char *text, size_t len);

struct cmek_problem_class {
	enum cmek_kind kind;
	int err;    /* errno that goes with it, positive */
	bool retry; /* the same request may succeed soon */
	bool renew; /* new credentials may help: forget the cached ones and ask once more */
};
/* code "" = none was given. Unknown codes are judged by the HTTP status. */
struct cmek_problem_class cmek_problem_classify(enum cmek_kms_service service, long status, const char *code);

#endif
