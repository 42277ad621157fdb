/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_KMS_JSON_H
#define CMEK_KMS_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/secret.h"

/*
 * Readers of JSON that was written by others (a KMS, a file): every field is asked for by name and type, and an error
 * names the place: "the reply: keys[2].created is not a time". Kind bad-format, -EINVAL, unless said otherwise.
 * Thread-safe as jansson is: values that are only read may be shared.
 */

/*
 * Makes jansson wipe what it frees, as bodies and the strings in them may be secret. The memory is not locked: take a
 * secret out with cmek_json_secret*() and free the JSON at once. Call it first in main(); repeating it is harmless,
 * and so is memory that jansson allocated before.
 */
void cmek_json_init(void);

/*
 * Parses one value that must be an object, with no member twice in any object and nothing behind it. what: names the
 * text in messages, "the key store /x/keys.json". The caller owns *ret_json.
 */
int cmek_json_parse(const void *text, size_t len, const char *what, json_t **ret_json, struct cmek_error *err);

/* A new string of text that need not be UTF-8, which JSON is: if it is not, all but ASCII is '?'. NULL: no memory. */
json_t *cmek_json_text(const char *text);

/*
 * An object or array and the way to it, for messages only. All borrowed: `what`, `up` and the JSON must outlive it
 * (they live in the caller's frame, one per level).
 */
struct cmek_json_at {
	const json_t *value;
	const struct cmek_json_at *up; /* NULL at the root */
	const char *what;              /* root: what is read */
	const char *name;              /* member of an object, NULL for an element of an array */
	size_t index;                  /* element of an array */
};
struct cmek_json_at cmek_json_root(const json_t *json, const char *what);

/* Records "WHAT: PATH.name problem"; name NULL = the value itself. Returns -EINVAL. */
int cmek_json_bad(const struct cmek_json_at *at, const char *name, const char *problem, struct cmek_error *err);

/* True when the object has this member and it is not null. */
bool cmek_json_has(const struct cmek_json_at *at, const char *name);
/* Refuses members that are not in the NULL-terminated list. */
int cmek_json_only(const struct cmek_json_at *at, const char *const *names, struct cmek_error *err);

/* The member `name` of the object `at`, which must be there. *ret_at borrows at. */
int cmek_json_object(const struct cmek_json_at *at, const char *name, struct cmek_json_at *ret_at,
		     struct cmek_error *err);
int cmek_json_array(const struct cmek_json_at *at, const char *name, struct cmek_json_at *ret_at, size_t *ret_n,
		    struct cmek_error *err);
/* Element i (below the array's length) of the array `at`, which must be an object. */
int cmek_json_element(const struct cmek_json_at *at, size_t i, struct cmek_json_at *ret_at, struct cmek_error *err);

/* The text is borrowed from the JSON; it holds no NUL. */
int cmek_json_string(const struct cmek_json_at *at, const char *name, const char **ret_text, struct cmek_error *err);
/* An integer from min to max. */
int cmek_json_uint(const struct cmek_json_at *at, const char *name, uint64_t min, uint64_t max, uint64_t *ret_value,
		   struct cmek_error *err);
int cmek_json_bool(const struct cmek_json_at *at, const char *name, bool *ret_value, struct cmek_error *err);
/* As cmek_time_decode() takes it. */
int cmek_json_time(const struct cmek_json_at *at, const char *name, int64_t *ret_unix_seconds, struct cmek_error *err);
/* The same with a fraction of a second allowed (it is cut off); 0 when there is no such member. */
int cmek_json_opt_time(const struct cmek_json_at *at, const char *name, int64_t *ret_unix_seconds,
		       struct cmek_error *err);
int cmek_json_uuid(const struct cmek_json_at *at, const char *name, uint8_t ret_uuid[16], struct cmek_error *err);
/* Standard base64 of exactly len bytes, which are not secret; ret_bytes is wiped on failure. */
int cmek_json_b64(const struct cmek_json_at *at, const char *name, void *ret_bytes, size_t len, struct cmek_error *err);

/* A string that is secret, as CMEK_KEY_TEXT; the empty string is refused. Caller owns *ret_secret. */
int cmek_json_secret(const struct cmek_json_at *at, const char *name, struct cmek_secret **ret_secret,
		     struct cmek_error *err);
/* Standard base64 of exactly len secret bytes. */
int cmek_json_secret_b64(const struct cmek_json_at *at, const char *name, enum cmek_purpose purpose, size_t len,
			 struct cmek_secret **ret_secret, struct cmek_error *err);

#endif
