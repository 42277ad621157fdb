/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Required-field readers over jansson, and the allocator that wipes what jansson frees. It knows no document: callers
 * say which fields they want and what the text is called.
 */
#include "config.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "kms/json.h"

#define PATH_MAX_BYTES 256
#define RESERVE_BYTES 65536

/* malloc_usable_size() rather than a length kept in front, so that blocks from before cmek_json_init() are fine too. */
static void wiping_free(void *p)
{
	if (p)
		cmek_wipe(p, malloc_usable_size(p));
	free(p);
}

/*
 * jansson (2.14) goes on when its lexer gets no memory: it drops characters, and may then run past the end of what it
 * kept. So no allocation may fail in a parse. What a parse needs at once is reserved before it begins; when memory runs
 * short the reserve is given up, the parse completes, and its result is thrown away. If even that is not enough, the
 * process can't go on safely.
 */
static _Thread_local struct {
	bool active; /* this thread is parsing */
	bool short_of_memory;
	void *reserve;
} parsing;

static void *careful_malloc(size_t n)
{
	void *p = malloc(n);

	if (p || !parsing.active)
		return p;
	parsing.short_of_memory = true;
	free(parsing.reserve);
	parsing.reserve = NULL;
	p = malloc(n);
	if (!p)
		abort();
	return p;
}

static void init_once(void)
{
	json_set_alloc_funcs(careful_malloc, wiping_free);
}

void cmek_json_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, init_once);
}

/* json_loadb() that never works on with memory missing: -ENOMEM. 0 and NULL: it is not JSON, see *at. */
static int load(const void *text, size_t len, json_t **ret_json, json_error_t *at)
{
	json_t *json;
	bool failed;

	/* The lexer's buffer doubles, and holds the old one meanwhile; a string's value is a copy of it. */
	parsing.reserve = len < SIZE_MAX / 8 ? malloc(4 * len + RESERVE_BYTES) : NULL;
	if (!parsing.reserve)
		return -ENOMEM;
	parsing.active = true;
	json = json_loadb(text, len, JSON_REJECT_DUPLICATES, at);
	failed = parsing.short_of_memory;
	free(parsing.reserve);
	memset(&parsing, 0, sizeof(parsing));
	if (failed) {
		json_decref(json);
		return -ENOMEM;
	}
	*ret_json = json;
	return 0;
}

int cmek_json_parse(const void *text, size_t len, const char *what, json_t **ret_json, struct cmek_error *err)
{
	json_error_t at;
	json_t *json = NULL;
	int rc;

	cmek_json_init();
	rc = load(text, len, &json, &at);
	if (rc < 0)
		return cmek_error_sys(err, -rc, "reading %s", what);
	/* at.text can quote what was read, and that may be secret: only the position is told. */
	if (!json && json_error_code(&at) == json_error_duplicate_key)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "%s has a member twice (line %d, column %d)", what,
				      at.line, at.column);
	if (!json)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "%s is not JSON (line %d, column %d)", what, at.line,
				      at.column);
	if (!json_is_object(json)) {
		rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "%s is not a JSON object", what);
		json_decref(json);
		return rc;
	}
	*ret_json = json;
	return 0;
}

json_t *cmek_json_text(const char *text)
{
	json_t *json = json_string(text);
	char *copy = json ? NULL : strdup(text);

	for (char *p = copy; p && *p; p++) {
		if (*p & 0x80)
			*p = '?';
	}
	if (copy)
		json = json_string(copy);
	free(copy);
	return json;
}

struct cmek_json_at cmek_json_root(const json_t *json, const char *what)
{
	return (struct cmek_json_at){ .value = json, .what = what };
}

/* Writes the path of at into buf (what fits of it) and returns its root. */
static const struct cmek_json_at *path_of(const struct cmek_json_at *at, char *buf, size_t max)
{
	const struct cmek_json_at *root;
	size_t used;

	buf[0] = '\0';
	if (!at->up)
		return at;
	root = path_of(at->up, buf, max);
	used = strlen(buf);
	if (at->name)
		snprintf(buf + used, max - used, "%s%s", used ? "." : "", at->name);
	else
		snprintf(buf + used, max - used, "[%zu]", at->index);
	return root;
}

int cmek_json_bad(const struct cmek_json_at *at, const char *name, const char *problem, struct cmek_error *err)
{
	char path[PATH_MAX_BYTES];
	const struct cmek_json_at *root = path_of(at, path, sizeof(path));

	return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "%s: %s%s%s%s%s", root->what, path,
			      name && path[0] ? "." : "", name ? name : "", name || path[0] ? " " : "", problem);
}

bool cmek_json_has(const struct cmek_json_at *at, const char *name)
{
	const json_t *v = json_object_get(at->value, name);

	return v && !json_is_null(v);
}

int cmek_json_only(const struct cmek_json_at *at, const char *const *names, struct cmek_error *err)
{
	size_t known = 0;
	json_t *v;
	const char *key;

	for (size_t i = 0; names[i]; i++) {
		if (json_object_get(at->value, names[i]))
			known++;
	}
	if (known == json_object_size(at->value))
		return 0;
	json_object_foreach((json_t *)at->value, key, v) {
		size_t i = 0;

		while (names[i] && strcmp(names[i], key) != 0)
			i++;
		/* The name itself is the writer's: it is not repeated. */
		if (!names[i])
			return cmek_json_bad(at, NULL, "has a member that this version does not know", err);
	}
	return 0;
}

/* The member, if it is there and of this type. */
static const json_t *member(const struct cmek_json_at *at, const char *name, json_type type, const char *problem,
			    struct cmek_error *err)
{
	const json_t *v = json_object_get(at->value, name);

	if (!v)
		cmek_json_bad(at, name, "is missing", err);
	else if (json_typeof(v) != type)
		cmek_json_bad(at, name, problem, err);
	return v && json_typeof(v) == type ? v : NULL;
}

int cmek_json_object(const struct cmek_json_at *at, const char *name, struct cmek_json_at *ret_at,
		     struct cmek_error *err)
{
	const json_t *v = member(at, name, JSON_OBJECT, "is not an object", err);

	if (!v)
		return -EINVAL;
	*ret_at = (struct cmek_json_at){ .value = v, .up = at, .name = name };
	return 0;
}

int cmek_json_array(const struct cmek_json_at *at, const char *name, struct cmek_json_at *ret_at, size_t *ret_n,
		    struct cmek_error *err)
{
	const json_t *v = member(at, name, JSON_ARRAY, "is not an array", err);

	if (!v)
		return -EINVAL;
	*ret_at = (struct cmek_json_at){ .value = v, .up = at, .name = name };
	*ret_n = json_array_size(v);
	return 0;
}

int cmek_json_element(const struct cmek_json_at *at, size_t i, struct cmek_json_at *ret_at, struct cmek_error *err)
{
	struct cmek_json_at el = { .value = json_array_get(at->value, i), .up = at, .index = i };

	if (!json_is_object(el.value))
		return cmek_json_bad(&el, NULL, "is not an object", err);
	*ret_at = el;
	return 0;
}

int cmek_json_string(const struct cmek_json_at *at, const char *name, const char **ret_text, struct cmek_error *err)
{
	const json_t *v = member(at, name, JSON_STRING, "is not a string", err);

	if (!v)
		return -EINVAL;
	*ret_text = json_string_value(v);
	return 0;
}

int cmek_json_uint(const struct cmek_json_at *at, const char *name, uint64_t min, uint64_t max, uint64_t *ret_value,
		   struct cmek_error *err)
{
	const json_t *v = member(at, name, JSON_INTEGER, "is not an integer", err);
	json_int_t n;

	if (!v)
		return -EINVAL;
	n = json_integer_value(v);
	if (n < 0 || (uint64_t)n < min || (uint64_t)n > max)
		return cmek_json_bad(at, name, "is out of range", err);
	*ret_value = (uint64_t)n;
	return 0;
}

int cmek_json_bool(const struct cmek_json_at *at, const char *name, bool *ret_value, struct cmek_error *err)
{
	const json_t *v = json_object_get(at->value, name);

	if (!v)
		return cmek_json_bad(at, name, "is missing", err);
	if (!json_is_boolean(v))
		return cmek_json_bad(at, name, "is neither true nor false", err);
	*ret_value = json_is_true(v);
	return 0;
}

int cmek_json_time(const struct cmek_json_at *at, const char *name, int64_t *ret_unix_seconds, struct cmek_error *err)
{
	const char *text = NULL;
	int rc = cmek_json_string(at, name, &text, err);

	if (rc < 0)
		return rc;
	if (cmek_time_decode(text, ret_unix_seconds) < 0)
		return cmek_json_bad(at, name, "is not a time (YYYY-MM-DDTHH:MM:SSZ)", err);
	return 0;
}

int cmek_json_opt_time(const struct cmek_json_at *at, const char *name, int64_t *ret_unix_seconds,
		       struct cmek_error *err)
{
	static const size_t dot = sizeof("YYYY-MM-DDTHH:MM:SS") - 1;
	const char *text = NULL;
	char seconds[CMEK_TIME_TEXT];
	size_t len;
	int rc;

	if (!cmek_json_has(at, name)) {
		*ret_unix_seconds = 0;
		return 0;
	}
	rc = cmek_json_string(at, name, &text, err);
	if (rc < 0)
		return rc;
	len = strlen(text);
	if (len > dot + 2 && text[dot] == '.' && strspn(text + dot + 1, "0123456789") == len - dot - 2 &&
	    text[len - 1] == 'Z') {
		memcpy(seconds, text, dot);
		memcpy(seconds + dot, "Z", 2);
		text = seconds;
	}
	if (cmek_time_decode(text, ret_unix_seconds) < 0)
		return cmek_json_bad(at, name, "is not a time (RFC 3339 in UTC)", err);
	return 0;
}

int cmek_json_uuid(const struct cmek_json_at *at, const char *name, uint8_t ret_uuid[16], struct cmek_error *err)
{
	const char *text = NULL;
	int rc = cmek_json_string(at, name, &text, err);

	if (rc < 0)
		return rc;
	if (cmek_uuid_decode(text, ret_uuid) < 0)
		return cmek_json_bad(at, name, "is not a UUID", err);
	return 0;
}

/* Decodes into out, which has room for len bytes; wiped unless it is exactly that many. */
static int decode_b64(const struct cmek_json_at *at, const char *name, void *out, size_t len, struct cmek_error *err)
{
	const json_t *v = member(at, name, JSON_STRING, "is not a string", err);

	if (!v)
		return -EINVAL;
	if (cmek_b64_decode(json_string_value(v), json_string_length(v), out, len) != (long)len) {
		cmek_wipe(out, len);
		return cmek_json_bad(at, name, "is not base64 of the expected length", err);
	}
	return 0;
}

int cmek_json_b64(const struct cmek_json_at *at, const char *name, void *ret_bytes, size_t len, struct cmek_error *err)
{
	return decode_b64(at, name, ret_bytes, len, err);
}

int cmek_json_secret(const struct cmek_json_at *at, const char *name, struct cmek_secret **ret_secret,
		     struct cmek_error *err)
{
	const json_t *v = member(at, name, JSON_STRING, "is not a string", err);

	if (!v)
		return -EINVAL;
	if (json_string_length(v) == 0)
		return cmek_json_bad(at, name, "is empty", err);
	if (json_string_length(v) > CMEK_SECRET_MAX)
		return cmek_json_bad(at, name, "is too long", err);
	return cmek_secret_new_copy(CMEK_KEY_TEXT, json_string_value(v), json_string_length(v), ret_secret, err);
}

int cmek_json_secret_b64(const struct cmek_json_at *at, const char *name, enum cmek_purpose purpose, size_t len,
			 struct cmek_secret **ret_secret, struct cmek_error *err)
{
	struct cmek_secret *s = NULL;
	int rc;

	rc = cmek_secret_new(purpose, len, &s, err);
	if (rc == 0)
		rc = decode_b64(at, name, cmek_secret_fill(s, purpose), len, err);
	if (rc < 0) {
		cmek_secret_free(s);
		return rc;
	}
	*ret_secret = s;
	return 0;
}
