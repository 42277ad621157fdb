/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Reads the configuration file by inih and checks it against the table of all keys, which begins this file. It knows the
 * form of values and nothing of what they are for.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/conf.h"
#include "base/io.h"
#include "base/text.h"

#define FILE_MAX_BYTES (1u << 20)
#define NAME_MAX_BYTES 64
/* /dev/null, null(4) */
#define NULL_MAJOR 1
#define NULL_MINOR 3
#define BLANKS " \t\v\f\r" /* what inih takes for white space in a line */

enum form {
	TEXT,     /* anything that is not empty */
	PATH,     /* absolute */
	URL,      /* http:// or https:// */
	NUMBER,   /* min..max */
	DURATION, /* "30s", "5m": min..max seconds */
	BOOL,     /* yes, no (true, false, on, off) */
};

struct key {
	const char *name;
	enum form form;
	uint64_t min, max;
};

/* How a service is reached: in [kms] for all of them, in [aws], ... for one. */
#define TRANSPORT_KEYS                                                                      \
	{ "ca_file", PATH, 0, 0 }, { "proxy", TEXT, 0, 0 }, { "connect_timeout", DURATION, 1, 300 }, \
		{ "deadline", DURATION, 1, 3600 }, { "attempts", NUMBER, 1, 20 }

static const struct key kms_keys[] = {
	TRANSPORT_KEYS,
	{ NULL, TEXT, 0, 0 },
};
static const struct key aws_keys[] = {
	TRANSPORT_KEYS,
	{ "endpoint", URL, 0, 0 },
	{ "sts_endpoint", URL, 0, 0 },
	{ "metadata_endpoint", URL, 0, 0 },
	{ "region", TEXT, 0, 0 },
	{ "replica_region", TEXT, 0, 0 },
	{ "profile", TEXT, 0, 0 },
	{ "config_file", PATH, 0, 0 },
	{ "credentials_file", PATH, 0, 0 },
	{ "fips", BOOL, 0, 0 },
	{ "dual_stack", BOOL, 0, 0 },
	{ NULL, TEXT, 0, 0 },
};
static const struct key gcp_keys[] = {
	TRANSPORT_KEYS,
	{ "endpoint", URL, 0, 0 },
	{ "iam_endpoint", URL, 0, 0 },
	{ "metadata_endpoint", URL, 0, 0 },
	{ "credentials_file", PATH, 0, 0 },
	{ "quota_project", TEXT, 0, 0 },
	{ NULL, TEXT, 0, 0 },
};
static const struct key ibm_keys[] = {
	TRANSPORT_KEYS,
	{ "endpoint", URL, 0, 0 },
	{ "iam_endpoint", URL, 0, 0 },
	{ "metadata_endpoint", URL, 0, 0 },
	{ "api_key_file", PATH, 0, 0 },
	{ "trusted_profile", TEXT, 0, 0 },
	{ "compute_token_file", PATH, 0, 0 },
	{ "key_ring", TEXT, 0, 0 },
	{ NULL, TEXT, 0, 0 },
};
/* What values may be is the watch's own to say. */
static const struct key watch_keys[] = {
	{ "interval", TEXT, 0, 0 },
	{ "retry", TEXT, 0, 0 },
	{ "grace", TEXT, 0, 0 },
	{ "auto_rewrap", TEXT, 0, 0 },
	{ "on_throttled", TEXT, 0, 0 },
	{ "on_unreachable", TEXT, 0, 0 },
	{ "on_expired", TEXT, 0, 0 },
	{ "on_denied", TEXT, 0, 0 },
	{ "on_disabled", TEXT, 0, 0 },
	{ "on_pending_deletion", TEXT, 0, 0 },
	{ "on_destroyed", TEXT, 0, 0 },
	{ NULL, TEXT, 0, 0 },
};
static const struct key audit_keys[] = {
	{ "file", PATH, 0, 0 },
	{ NULL, TEXT, 0, 0 },
};
static const struct key volume_keys[] = {
	{ "store", PATH, 0, 0 },
	{ "key", TEXT, 0, 0 },
	{ "profile", TEXT, 0, 0 },
	{ "auto_rewrap", BOOL, 0, 0 },
	{ NULL, TEXT, 0, 0 },
};

/* Which heads a section may have. */
enum naming { PLAIN = 1, NAMED = 2, EITHER = PLAIN | NAMED };

static const struct section {
	const char *name;
	enum naming naming;
	const struct key *keys;
} sections[] = {
	{ "audit", PLAIN, audit_keys },
	{ "kms", PLAIN, kms_keys },
	{ "aws", EITHER, aws_keys },
	{ "gcp", EITHER, gcp_keys },
	{ "ibm", EITHER, ibm_keys },
	{ "volume", NAMED, volume_keys },
	{ "watch", PLAIN, watch_keys },
};
#define N_SECTIONS (sizeof(sections) / sizeof(sections[0]))

struct entry {
	char *head; /* as it stands between the brackets */
	char *key;  /* NULL: the heading itself */
	char *value;
};

struct cmek_conf {
	struct entry *entries;
	size_t n, room;
};

/* The state of one reading. */
struct reading {
	struct cmek_conf *conf;
	const char *path;
	char *next; /* the rest of the text */
	unsigned line;
	const struct section *section; /* NULL before the first heading */
	char head[NAME_MAX_BYTES * 2];
	int rc;
	struct cmek_error *err;
};

static bool bool_of(const char *text, bool *ret)
{
	static const struct {
		const char *word;
		bool value;
	} words[] = { { "yes", true }, { "true", true }, { "on", true }, { "no", false }, { "false", false }, { "off", false } };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(text, words[i].word) == 0) {
			*ret = words[i].value;
			return true;
		}
	}
	return false;
}

/* NULL when the value has the key's form, else what would have. buf: room for that text. */
static const char *expected(const struct key *key, const char *value, char *buf, size_t max)
{
	uint64_t n = 0;
	bool b;

	switch (key->form) {
	case TEXT:
		return *value ? NULL : "a value";
	case PATH:
		return *value == '/' ? NULL : "an absolute path";
	case URL:
		return strncmp(value, "https://", 8) == 0 || strncmp(value, "http://", 7) == 0 ? NULL : "an http(s) URL";
	case NUMBER:
		if (cmek_parse_u64(value, key->max, &n) == 0 && n >= key->min)
			return NULL;
		snprintf(buf, max, "a number from %llu to %llu", (unsigned long long)key->min,
			 (unsigned long long)key->max);
		return buf;
	case DURATION:
		if (cmek_parse_duration(value, &n) == 0 && n >= key->min && n <= key->max)
			return NULL;
		snprintf(buf, max, "a time from %llu to %llu seconds, as in 30s or 5m", (unsigned long long)key->min,
			 (unsigned long long)key->max);
		return buf;
	case BOOL:
		return bool_of(value, &b) ? NULL : "yes or no";
	}
	return NULL;
}

/* Stops the reading with the first mistake. problem is told of `word`. */
static void refuse(struct reading *r, const char *word, const char *problem)
{
	if (r->rc == 0)
		r->rc = cmek_error_set(r->err, CMEK_E_USAGE, EINVAL, "%s:%u: \"%.100s\" %s", r->path, r->line, word,
				       problem);
}

static int add_entry(struct cmek_conf *conf, const char *head, const char *key, const char *value)
{
	struct entry *e;

	if (conf->n == conf->room) {
		size_t room = conf->room ? 2 * conf->room : 32;
		struct entry *grown = reallocarray(conf->entries, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		conf->entries = grown;
		conf->room = room;
	}
	e = &conf->entries[conf->n];
	e->head = strdup(head);
	e->key = key ? strdup(key) : NULL;
	e->value = value ? strdup(value) : NULL;
	conf->n++; /* freed even when incomplete */
	return !e->head || (key && !e->key) || (value && !e->value) ? -ENOMEM : 0;
}

static void remember(struct reading *r, const char *key, const char *value)
{
	if (add_entry(r->conf, r->head, key, value) < 0)
		r->rc = cmek_error_sys(r->err, ENOMEM, "reading %s", r->path);
}

static bool name_ok(const char *name)
{
	size_t n = strlen(name);

	return n >= 1 && n <= NAME_MAX_BYTES &&
	       strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

/* text: what stands between the brackets. */
static void open_section(struct reading *r, const char *text)
{
	size_t n = strcspn(text, " ");
	const char *name = text[n] ? text + n + strspn(text + n, " ") : NULL;

	r->section = NULL;
	for (size_t i = 0; i < N_SECTIONS; i++) {
		if (strlen(sections[i].name) == n && strncmp(sections[i].name, text, n) == 0)
			r->section = &sections[i];
	}
	if (!r->section) {
		refuse(r, text, "is not a section");
		return;
	}
	if (name ? !(r->section->naming & NAMED) : !(r->section->naming & PLAIN)) {
		refuse(r, text, name ? "takes no name" : "needs a name, as in [volume db]");
		return;
	}
	if (name && !name_ok(name)) {
		refuse(r, name, "is not a name: 1 to 64 of A-Z a-z 0-9 . _ -");
		return;
	}
	snprintf(r->head, sizeof(r->head), "%s%s%s", r->section->name, name ? " " : "", name ? name : "");
	for (size_t i = 0; i < r->conf->n; i++) {
		if (!r->conf->entries[i].key && strcmp(r->conf->entries[i].head, r->head) == 0) {
			refuse(r, r->head, "is there twice");
			return;
		}
	}
	remember(r, NULL, NULL);
}

/*
 * inih's source of lines. Debian's inih tells its handler neither lines nor empty sections, and cuts long lines in two:
 * both are seen here.
 */
static char *next_line(char *buf, int room, void *stream)
{
	struct reading *r = stream;
	char *end;
	size_t len;

	if (r->rc < 0 || *r->next == '\0')
		return NULL;
	r->next += strspn(r->next, BLANKS); /* inih would take an indented line for more of the value above it */
	end = strchrnul(r->next, '\n');
	len = (size_t)(end - r->next);
	r->line++;
	if (len + 2 > (size_t)room) {
		memcpy(buf, r->next, 40);
		buf[40] = '\0';
		refuse(r, buf, "begins a line that is too long");
		return NULL;
	}
	memcpy(buf, r->next, len);
	buf[len] = '\n';
	buf[len + 1] = '\0';
	r->next = *end ? end + 1 : end;
	if (buf[0] == '[') {
		char *close = strchr(buf, ']'), *rest;

		if (!close) {
			buf[len] = '\0';
			refuse(r, buf, "has no closing bracket");
			return NULL;
		}
		*close = '\0';
		open_section(r, buf + 1);
		*close = ']';
		rest = close + 1 + strspn(close + 1, BLANKS);
		if (*rest != '\n' && *rest != ';' && *rest != '#') {
			buf[len] = '\0';
			refuse(r, rest, "stands behind a section's closing bracket");
		}
	}
	return r->rc < 0 ? NULL : buf;
}

/* The entry of this key in the section that is open, NULL if there is none. */
static struct entry *find(const struct cmek_conf *conf, const char *head, const char *key)
{
	for (size_t i = 0; conf && i < conf->n; i++) {
		struct entry *e = &conf->entries[i];

		if (e->key && strcmp(e->head, head) == 0 && strcmp(e->key, key) == 0)
			return e;
	}
	return NULL;
}

/* inih's handler: 1 goes on. */
static int take(void *arg, const char *head, const char *name, const char *value)
{
	struct reading *r = arg;
	const struct key *key;
	char buf[128];
	const char *form;

	(void)head; /* open_section() has it, checked */
	if (r->rc < 0)
		return 0;
	if (!r->section) {
		refuse(r, name, "stands before the first section");
		return 0;
	}
	for (key = r->section->keys; key->name && strcmp(key->name, name) != 0; key++)
		;
	if (!key->name) {
		refuse(r, name, "is not a key of this section");
		return 0;
	}
	if (find(r->conf, r->head, name)) {
		refuse(r, name, "is set twice in this section");
		return 0;
	}
	form = expected(key, value, buf, sizeof(buf));
	if (form) {
		char problem[192];

		snprintf(problem, sizeof(problem), "needs %s", form);
		refuse(r, name, problem);
		return 0;
	}
	remember(r, name, value);
	return r->rc == 0;
}

/* The text, or "" for a default file that is not there. */
static int read_text(const char *path, bool is_default, char **ret_text, struct cmek_error *err)
{
	char *text = NULL;
	struct stat st;
	ssize_t n;
	int fd, rc = 0;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT && !is_default)
		return cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT, "%s: no such configuration file", path);
	if (fd < 0 && errno != ENOENT)
		return cmek_error_sys(err, errno, "%s", path);
	text = calloc(1, FILE_MAX_BYTES + 2);
	if (!text) {
		rc = cmek_error_sys(err, ENOMEM, "%s", path);
		goto out;
	}
	if (fd < 0)
		goto out;
	if (fstat(fd, &st) != 0) {
		rc = cmek_error_sys(err, errno, "%s", path);
		goto out;
	}
	if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(NULL_MAJOR, NULL_MINOR))
		goto out; /* the usual word for an empty file */
	if (!S_ISREG(st.st_mode)) {
		rc = cmek_error_set(err, CMEK_E_USAGE, EINVAL, "%s: not a file", path);
		goto out;
	}
	/* Endpoints and pins are in there: whoever can write it can have the keys sent elsewhere. */
	if ((st.st_mode & 022) != 0 || (st.st_uid != 0 && st.st_uid != geteuid())) {
		rc = cmek_error_set(err, CMEK_E_DENIED, EPERM,
				    "%s: must belong to root or to you, and be writable by its owner only", path);
		goto out;
	}
	n = cmek_pread_full(fd, text, FILE_MAX_BYTES + 1, 0);
	if (n < 0)
		rc = cmek_error_sys(err, (int)-n, "%s", path);
	else if ((size_t)n > FILE_MAX_BYTES)
		rc = cmek_error_set(err, CMEK_E_LIMIT, EFBIG, "%s: larger than %u bytes", path, FILE_MAX_BYTES);
	else if (strlen(text) != (size_t)n)
		rc = cmek_error_set(err, CMEK_E_USAGE, EINVAL, "%s: not a text file", path);
out:
	if (fd >= 0)
		(void)close(fd); /* only read */
	if (rc == 0)
		*ret_text = text;
	else
		free(text);
	return rc;
}

int cmek_conf_load(const char *path, struct cmek_conf **ret_conf, struct cmek_error *err)
{
	const char *given = path ? path : getenv("CMEKFS_CONFIG");
	struct reading r = { .path = given && *given ? given : CMEK_CONF_PATH, .err = err };
	char *text = NULL;
	int line;

	r.rc = read_text(r.path, r.path != given, &text, err);
	if (r.rc < 0)
		return r.rc;
	r.conf = calloc(1, sizeof(*r.conf));
	if (!r.conf) {
		free(text);
		return cmek_error_sys(err, ENOMEM, "reading %s", r.path);
	}
	r.next = text;
	line = ini_parse_stream(next_line, &r, take, &r);
	if (r.rc == 0 && line > 0) /* inih's own complaint: no '=' */
		r.rc = cmek_error_set(err, CMEK_E_USAGE, EINVAL, "%s:%d: neither a section nor \"key = value\"", r.path, line);
	else if (r.rc == 0 && line < 0)
		r.rc = cmek_error_sys(err, ENOMEM, "reading %s", r.path);
	free(text);
	if (r.rc < 0)
		cmek_conf_free(r.conf);
	else
		*ret_conf = r.conf;
	return r.rc;
}

void cmek_conf_free(struct cmek_conf *conf)
{
	if (!conf)
		return;
	for (size_t i = 0; i < conf->n; i++) {
		free(conf->entries[i].head);
		free(conf->entries[i].key);
		free(conf->entries[i].value);
	}
	free(conf->entries);
	free(conf);
}

const char *cmek_conf_text(const struct cmek_conf *conf, const char *section, const char *name, const char *key)
{
	char head[NAME_MAX_BYTES * 2];
	const struct entry *e;

	snprintf(head, sizeof(head), "%s%s%s", section, name ? " " : "", name ? name : "");
	e = find(conf, head, key);
	return e ? e->value : NULL;
}

bool cmek_conf_number(const struct cmek_conf *conf, const char *section, const char *name, const char *key,
		      uint64_t *ret)
{
	const char *text = cmek_conf_text(conf, section, name, key);

	return text && cmek_parse_u64(text, UINT64_MAX, ret) == 0;
}

bool cmek_conf_duration(const struct cmek_conf *conf, const char *section, const char *name, const char *key,
			uint64_t *ret_seconds)
{
	const char *text = cmek_conf_text(conf, section, name, key);

	return text && cmek_parse_duration(text, ret_seconds) == 0;
}

bool cmek_conf_bool(const struct cmek_conf *conf, const char *section, const char *name, const char *key, bool *ret)
{
	const char *text = cmek_conf_text(conf, section, name, key);

	return text && bool_of(text, ret);
}

const char *cmek_conf_name(const struct cmek_conf *conf, const char *section, size_t i)
{
	size_t len = strlen(section);

	for (size_t e = 0; conf && e < conf->n; e++) {
		const char *head = conf->entries[e].head;

		if (conf->entries[e].key || strncmp(head, section, len) != 0 || head[len] != ' ')
			continue;
		if (i-- == 0)
			return head + len + 1;
	}
	return NULL;
}
