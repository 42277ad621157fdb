/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The audit log: makes the line of an event, chains it to the line before, and follows such chains. It knows the form of
 * lines, and neither what events there are nor why they come.
 */
#include "config.h"

#include "fs/volume/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/conf.h"
#include "base/crypto.h"
#include "base/io.h"
#include "fs/volume/slot.h"
#include "kms/local_file.h"

#define ROOT_PATH "/var/log/cmekfs/audit.log"
#define USER_PATH "cmekfs/audit.log"
#define CHAIN_SUFFIX ".chain"
#define LOCK_DEADLINE_MS 10000
#define LOCK_TICK_MS 5
/* All texts of an event at their longest, each byte as \uXXXX, fit. */
#define LINE_MAX_BYTES (128u << 10)
/* FILE.chain: "NUMBER HASH\n", of one length so that it is overwritten in one piece. */
#define RECORD_LEN (20 + 1 + 64 + 1)
/* What event_json() begins with. */
#define LINE_BEGIN "{\"time\":\""
#define NO_HASH "0000000000000000000000000000000000000000000000000000000000000000"

/* A place in the chain: the number of a line, and its hash. */
struct link {
	uint64_t number; /* 0 = before the first line of all */
	char hash[CMEK_AUDIT_HASH_TEXT];
};

static int no_memory(struct cmek_error *err)
{
	return cmek_error_sys(err, ENOMEM, "audit log");
}

/* ---- where it is ---- */

static int default_path(char **ret_path, struct cmek_error *err)
{
	const char *state = secure_getenv("XDG_STATE_HOME"), *home = secure_getenv("HOME");
	int n;

	if (geteuid() == 0)
		n = asprintf(ret_path, ROOT_PATH);
	else if (state && state[0] == '/')
		n = asprintf(ret_path, "%s/" USER_PATH, state);
	else if (home && home[0] == '/')
		n = asprintf(ret_path, "%s/.local/state/" USER_PATH, home);
	else
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "where the audit log is can't be told: neither CMEKFS_AUDIT_LOG nor XDG_STATE_HOME nor "
				      "HOME is set to a path");
	return n < 0 ? no_memory(err) : 0;
}

/* *ret_is_default: its directory may be made. */
static int find_path(const char *config_path, char **ret_path, bool *ret_is_default, struct cmek_error *err)
{
	const char *given = secure_getenv("CMEKFS_AUDIT_LOG");
	struct cmek_conf *conf = NULL;
	char *path = NULL;
	int rc = 0;

	if (!given || !given[0]) {
		rc = cmek_conf_load(config_path, &conf, err);
		if (rc != 0)
			return rc;
		given = cmek_conf_text(conf, "audit", NULL, "file");
	}
	*ret_is_default = !given;
	if (!given) {
		rc = default_path(&path, err);
	} else {
		path = strdup(given);
		if (!path)
			rc = no_memory(err);
	}
	cmek_conf_free(conf);
	if (rc == 0)
		*ret_path = path;
	return rc;
}

int cmek_audit_path(const char *config_path, char **ret_path, struct cmek_error *err)
{
	bool is_default;

	return find_path(config_path, ret_path, &is_default, err);
}

/* ---- lines ---- */

static int hash_line(const char *line, size_t len, char hash[CMEK_AUDIT_HASH_TEXT])
{
	const struct iovec piece = { (void *)line, len };
	uint8_t digest[CMEK_SHA256_LEN];
	int rc = cmek_sha256(&piece, 1, digest);

	if (rc == 0)
		cmek_hex_encode(digest, sizeof(digest), hash);
	return rc;
}

/* A text that is there. */
static void add_text(json_t *json, const char *name, const char *text)
{
	/* Without memory the dump fails as well, or the event lacks one text. */
	if (text && text[0])
		(void)json_object_set_new(json, name, cmek_json_text(text));
}

/* What only mounts tell. */
static void add_mount(json_t *json, const struct cmek_audit_event *event)
{
	add_text(json, "mount_point", event->mount_point);
	add_text(json, "was", event->was);
	add_text(json, "state", event->state);
	add_text(json, "reason", event->reason);
	if (event->inode != 0)
		(void)json_object_set_new(json, "inode", json_integer((json_int_t)event->inode));
	add_text(json, "stored", event->stored);
	if (event->offset)
		(void)json_object_set_new(json, "offset", json_integer((json_int_t)*event->offset));
	if (event->left_out > 0)
		(void)json_object_set_new(json, "left_out", json_integer((json_int_t)event->left_out));
}

static void add_call(json_t *json, const struct cmek_audit_event *event)
{
	json_t *list, *request;
	size_t i;

	add_text(json, "provider", event->provider);
	add_text(json, "operation", event->operation);
	if (event->took_ms)
		(void)json_object_set_new(json, "duration_ms", json_integer((json_int_t)*event->took_ms));
	add_text(json, "request_id", event->request_id);
	if (event->n_requests == 0)
		return;
	list = json_array();
	for (i = 0; i < event->n_requests; i++) {
		request = json_object();
		add_text(request, "what", event->requests[i].what);
		(void)json_object_set_new(request, "status", json_integer(event->requests[i].status));
		add_text(request, "request_id", event->requests[i].request_id);
		(void)json_array_append_new(list, request);
	}
	(void)json_object_set_new(json, "requests", list);
	if (event->n_requests_left_out > 0)
		(void)json_object_set_new(json, "requests_left_out", json_integer((json_int_t)event->n_requests_left_out));
}

void cmek_audit_kms_call(const struct cmek_kms_call *call, struct cmek_audit_event *ret_event)
{
	*ret_event = (struct cmek_audit_event){
		.name = "kms.call", .volume = call->volume, .key = call->key, .version = call->version,
		.purpose = call->purpose, .slot = -1, .provider = call->provider, .operation = call->operation,
		.requests = call->requests, .n_requests = call->n_requests, .n_requests_left_out = call->n_left_out,
		.took_ms = &call->took_ms, .failure = call->failure,
	};
	if (call->n_requests > 0)
		ret_event->request_id = call->requests[call->n_requests - 1].request_id;
}

static json_t *event_json(const struct cmek_audit_event *event)
{
	bool failed = cmek_error_is_set(event->failure);
	char uuid[CMEK_UUID_TEXT], when[CMEK_TIME_TEXT];
	json_t *json = json_object();

	cmek_time_encode((int64_t)time(NULL), when);
	add_text(json, "time", when);
	add_text(json, "event", event->name);
	add_text(json, "outcome", failed ? "failure" : "success");
	if (failed)
		add_text(json, "error", cmek_kind_name(event->failure->kind));
	if (event->volume) {
		cmek_uuid_encode(event->volume, uuid);
		add_text(json, "volume", uuid);
	}
	add_text(json, "label", event->label);
	add_text(json, "store", event->store);
	if (event->slot >= 0)
		(void)json_object_set_new(json, "slot", json_integer(event->slot));
	add_text(json, "purpose", event->purpose);
	add_text(json, "key", event->key);
	add_text(json, "version", event->version);
	if (event->dek > 0)
		(void)json_object_set_new(json, "dek", json_integer(event->dek));
	add_text(json, "file", event->file);
	add_mount(json, event);
	add_call(json, event);
	add_text(json, "program", event->program);
	(void)json_object_set_new(json, "uid", json_integer((json_int_t)getuid()));
	(void)json_object_set_new(json, "pid", json_integer((json_int_t)(event->pid ? event->pid : getpid())));
	return json;
}

/* The event's line, malloced, without its newline, behind `at`, which moves on to it. json is completed. */
static int make_line(json_t *json, struct link *at, char **ret_line, struct cmek_error *err)
{
	struct link next = { .number = at->number + 1 };
	char *line;

	if (json_object_set_new(json, "seq", json_integer((json_int_t)next.number)) != 0 ||
	    json_object_set_new(json, "prev", json_string(at->hash)) != 0)
		return no_memory(err);
	line = cmek_slot_dump_json(json, JSON_COMPACT | JSON_ENSURE_ASCII);
	if (!line)
		return no_memory(err);
	if (strlen(line) >= LINE_MAX_BYTES || hash_line(line, strlen(line), next.hash) != 0) {
		free(line);
		return cmek_error_set(err, CMEK_E_LIMIT, EMSGSIZE, "audit log: an event that is too long");
	}
	*at = next;
	*ret_line = line;
	return 0;
}

/* A line of a file: what it says of its place. Its hash is not looked at. False: it is no such line. */
static bool read_line(const char *line, size_t len, uint64_t *ret_number, char ret_prev[CMEK_AUDIT_HASH_TEXT])
{
	json_t *json = memchr(line, '\0', len) ? NULL : json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
	const char *prev = json_string_value(json_object_get(json, "prev"));
	json_int_t number = json_integer_value(json_object_get(json, "seq"));
	uint8_t digest[CMEK_SHA256_LEN];
	bool good = number > 0 && prev && strlen(prev) == CMEK_AUDIT_HASH_TEXT - 1 &&
		    cmek_hex_decode(prev, CMEK_AUDIT_HASH_TEXT - 1, digest, sizeof(digest)) > 0;

	if (good) {
		*ret_number = (uint64_t)number;
		memcpy(ret_prev, prev, CMEK_AUDIT_HASH_TEXT);
	}
	json_decref(json);
	return good;
}

/* ---- FILE.chain ---- */

/* Opens FILE.chain and locks it (LOCK_EX or LOCK_SH), which may take so long. */
static int lock_chain(const char *path, int flags, int how, unsigned deadline_ms, int *ret_fd, struct cmek_error *err)
{
	const struct timespec tick = { 0, LOCK_TICK_MS * 1000000L };
	unsigned waited_ms = 0;
	char *name = NULL;
	int fd, rc = 0;

	if (asprintf(&name, "%s" CHAIN_SUFFIX, path) < 0)
		return no_memory(err);
	fd = open(name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
	if (fd < 0)
		rc = cmek_error_sys(err, errno, "%s", name);
	while (rc == 0 && flock(fd, how | LOCK_NB) != 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			rc = cmek_error_sys(err, errno, "locking %s", name);
		else if (waited_ms >= deadline_ms)
			rc = cmek_error_set(err, CMEK_E_BUSY, EBUSY, "%s is locked by another program", name);
		else
			(void)nanosleep(&tick, NULL); /* sooner is fine */
		waited_ms += LOCK_TICK_MS;
	}
	free(name);
	if (rc == 0)
		*ret_fd = fd;
	else if (fd >= 0)
		(void)close(fd); /* nothing was written */
	return rc;
}

/* False when there is no such record: a new log, or one that a crash or somebody has spoiled. */
static bool load_record(int fd, struct link *ret_link)
{
	char text[RECORD_LEN + 1] = "", number[21];
	struct link link;
	uint8_t digest[CMEK_SHA256_LEN];
	size_t zeros;

	if (cmek_pread_full(fd, text, RECORD_LEN, 0) != RECORD_LEN || text[20] != ' ' || text[RECORD_LEN - 1] != '\n')
		return false;
	memcpy(number, text, 20);
	number[20] = '\0';
	zeros = strspn(number, "0");
	memcpy(link.hash, text + 21, CMEK_AUDIT_HASH_TEXT - 1);
	link.hash[CMEK_AUDIT_HASH_TEXT - 1] = '\0';
	if (cmek_parse_u64(number + zeros, INT64_MAX, &link.number) != 0 || link.number == 0 ||
	    cmek_hex_decode(link.hash, CMEK_AUDIT_HASH_TEXT - 1, digest, sizeof(digest)) < 0)
		return false;
	*ret_link = link;
	return true;
}

static int save_record(int fd, const struct link *link)
{
	char text[RECORD_LEN + 1];
	int rc;

	(void)snprintf(text, sizeof(text), "%020" PRIu64 " %s\n", link->number, link->hash);
	rc = cmek_pwrite_full(fd, text, RECORD_LEN, 0);
	if (rc == 0 && fdatasync(fd) != 0)
		rc = -errno;
	return rc;
}

/* ---- writing ---- */

/*
 * The last whole line of the file, into *ret_link; number 0 when there is none that can be read. *ret_end: behind it;
 * what follows is the piece of a line that a crash has left.
 */
static int find_tail(int fd, uint64_t size, struct link *ret_link, uint64_t *ret_end)
{
	uint64_t from = size > LINE_MAX_BYTES ? size - LINE_MAX_BYTES : 0;
	char *buf = malloc(LINE_MAX_BYTES), *end, *begin, prev[CMEK_AUDIT_HASH_TEXT];
	size_t piece;
	ssize_t n;
	int rc = 0;

	if (!buf)
		return -ENOMEM;
	ret_link->number = 0;
	*ret_end = from;
	n = cmek_pread_full(fd, buf, (size_t)(size - from), from);
	if (n <= 0) {
		rc = (int)n;
		goto out;
	}
	end = memrchr(buf, '\n', (size_t)n);
	begin = end ? end + 1 : buf;
	*ret_end = from + (uint64_t)(begin - buf);
	piece = (size_t)(buf + n - begin);
	/* What is no beginning of a line of ours is in a file that is none of ours. */
	if (memcmp(begin, LINE_BEGIN, piece < strlen(LINE_BEGIN) ? piece : strlen(LINE_BEGIN)) != 0)
		rc = -EMEDIUMTYPE;
	if (!end || rc != 0)
		goto out;
	begin = memrchr(buf, '\n', (size_t)(end - buf));
	begin = begin ? begin + 1 : buf;
	if (!read_line(begin, (size_t)(end - begin), &ret_link->number, prev) ||
	    hash_line(begin, (size_t)(end - begin), ret_link->hash) != 0)
		ret_link->number = 0;
out:
	free(buf);
	return rc;
}

/* Where the chain is, under its lock; what a crash has left of a line goes. *ret_end: where the next line begins. */
static int find_end(int fd, int chain_fd, struct link *ret_link, uint64_t *ret_end)
{
	struct link known = { .number = 0, .hash = NO_HASH }, tail;
	struct stat st;
	int rc = 0;

	if (fstat(fd, &st) != 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	rc = find_tail(fd, (uint64_t)st.st_size, &tail, ret_end);
	if (rc == 0 && *ret_end < (uint64_t)st.st_size && ftruncate(fd, (off_t)*ret_end) != 0)
		rc = -errno;
	/*
	 * The record is behind after a crash between line and record. It is ahead in a new file, and when lines were taken
	 * away: going on from it shows that.
	 */
	(void)load_record(chain_fd, &known);
	*ret_link = tail.number > known.number ? tail : known;
	return rc;
}

static int append(int fd, uint64_t end, char *line)
{
	size_t len = strlen(line);
	int rc;

	line[len] = '\n'; /* in the place of the NUL: one write makes the line */
	rc = cmek_write_full(fd, line, len + 1);
	line[len] = '\0';
	if (rc == 0 && fdatasync(fd) != 0)
		rc = -errno;
	if (rc != 0 && ftruncate(fd, (off_t)end) != 0)
		return rc; /* the next writer cuts the piece off */
	return rc;
}

/* Directories of a log in its usual place are made. */
static int open_log(const char *path, bool make_dir, unsigned deadline_ms, int *ret_chain_fd, int *ret_fd,
		    struct cmek_error *err)
{
	int rc = make_dir ? cmek_local_file_make_dir(path, err) : 0;

	if (rc == 0)
		rc = lock_chain(path, O_RDWR | O_CREAT, LOCK_EX, deadline_ms, ret_chain_fd, err);
	if (rc != 0)
		return rc;
	*ret_fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0600);
	return *ret_fd >= 0 ? 0 : cmek_error_sys(err, errno, "%s", path);
}

static void tell_syslog(const struct cmek_audit_event *event, json_t *json, const char *line)
{
	char *text = line ? NULL : cmek_slot_dump_json(json, JSON_COMPACT | JSON_ENSURE_ASCII);

	if (line || text)
		syslog(LOG_AUTHPRIV | (cmek_error_is_set(event->failure) ? LOG_WARNING : LOG_NOTICE), "cmekfs-audit: %s",
		       line ? line : text);
	free(text);
}

int cmek_audit_write(const char *config_path, const struct cmek_audit_event *event, struct cmek_error *err)
{
	struct link at = { .number = 0 };
	json_t *json = event_json(event);
	char *path = NULL, *line = NULL;
	int chain_fd = -1, fd = -1, rc;
	bool is_default = false;
	uint64_t end = 0;

	rc = find_path(config_path, &path, &is_default, err);
	if (rc == 0)
		rc = open_log(path, is_default, event->at_once ? 0 : LOCK_DEADLINE_MS, &chain_fd, &fd, err);
	if (rc == 0) {
		rc = find_end(fd, chain_fd, &at, &end);
		if (rc != 0)
			rc = cmek_error_sys(err, -rc, "%s", path);
	}
	if (rc == 0)
		rc = make_line(json, &at, &line, err);
	if (rc == 0) {
		rc = append(fd, end, line);
		if (rc == 0)
			rc = save_record(chain_fd, &at);
		if (rc != 0)
			rc = cmek_error_sys(err, -rc, "writing %s", path);
	}
	if (fd >= 0)
		(void)close(fd); /* fdatasync has told what there was to tell */
	if (chain_fd >= 0)
		(void)close(chain_fd); /* and gives back the lock */
	tell_syslog(event, json, line);
	json_decref(json);
	free(line);
	free(path);
	return rc;
}

/* ---- following ---- */

static int broken(const char *path, uint64_t line, const char *what, struct cmek_error *err)
{
	return cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG, "%s:%" PRIu64 ": %s", path, line, what);
}

static int check_line(const char *path, uint64_t n, const char *line, size_t len, struct cmek_audit_chain *chain,
		      struct cmek_error *err)
{
	char prev[CMEK_AUDIT_HASH_TEXT];
	uint64_t number = 0;
	int rc;

	if (len == 0 || line[len - 1] != '\n')
		return broken(path, n, "the line is cut off", err);
	len--;
	if (!read_line(line, len, &number, prev))
		return broken(path, n, "no event of an audit log", err);
	if (chain->last != 0 && number != chain->last + 1)
		return broken(path, n, number > chain->last + 1 ? "events before this one are missing" :
								  "events are repeated or out of order",
			      err);
	if (chain->last != 0 && strcmp(prev, chain->hash) != 0)
		return broken(path, n, "does not follow the line before it: one of the two was changed", err);
	if (number == 1 && strcmp(prev, NO_HASH) != 0)
		return broken(path, n, "the first event of all follows another", err);
	rc = hash_line(line, len, chain->hash);
	if (rc != 0)
		return cmek_error_sys(err, -rc, "%s", path);
	if (chain->last == 0)
		chain->first = number;
	chain->last = number;
	chain->events++;
	return 0;
}

/* What FILE.chain says of the file's end; a file that was rotated away has none. */
static int check_end(const char *path, uint64_t n_lines, int chain_fd, const struct cmek_audit_chain *chain,
		     struct cmek_error *err)
{
	struct link known;

	if (chain_fd < 0 || chain->last == 0 || !load_record(chain_fd, &known))
		return 0;
	if (known.number > chain->last)
		return cmek_error_set(err, CMEK_E_TAMPERED, EBADMSG,
				      "%s:%" PRIu64 ": the end is missing: the last event here is %" PRIu64
				      ", the last that was written %" PRIu64,
				      path, n_lines + 1, chain->last, known.number);
	if (known.number == chain->last && strcmp(known.hash, chain->hash) != 0)
		return broken(path, n_lines, "is not the line that was written", err);
	return 0;
}

int cmek_audit_verify(const char *path, struct cmek_audit_chain *chain, struct cmek_error *err)
{
	uint64_t n_lines = 0;
	size_t room = 0;
	char *line = NULL;
	int chain_fd = -1, rc;
	FILE *f = NULL;
	ssize_t n;

	rc = lock_chain(path, O_RDONLY, LOCK_SH, LOCK_DEADLINE_MS, &chain_fd, err);
	if (rc == -ENOENT) {
		cmek_error_clear(err);
		rc = 0;
	}
	if (rc != 0)
		return rc;
	f = fopen(path, "re");
	if (!f)
		rc = errno == ENOENT ? cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT, "%s: there is no such audit log", path) :
				       cmek_error_sys(err, errno, "%s", path);
	while (rc == 0 && (n = getline(&line, &room, f)) > 0)
		rc = check_line(path, ++n_lines, line, (size_t)n, chain, err);
	if (rc == 0 && ferror(f))
		rc = cmek_error_sys(err, EIO, "reading %s", path);
	if (rc == 0)
		rc = check_end(path, n_lines, chain_fd, chain, err);
	free(line);
	if (f)
		(void)fclose(f); /* only read */
	if (chain_fd >= 0)
		(void)close(chain_fd);
	return rc;
}
