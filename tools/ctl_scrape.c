/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Asks the control sockets of all mounts at once, with one deadline, and makes one text of what they say. It must not know
 * what that text is for, nor what is in it beyond whose it is.
 */
#include "config.h"

#include "tools/ctl_scrape.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/promtext.h"
#include "base/text.h"
#include "fs/volume/ctlsock.h"
#include "tools/ctl.h"

/* One of the volumes that were named. */
struct target {
	const char *name;
	char *path;    /* what it is, if it is a path; NULL */
	bool mounted;  /* by a mount of this round, whether that answers or not */
	bool answered; /* by one that does */
};

enum state {
	ASKED_STATUS,
	ASKED_TEXT,
	ANSWERED,
	SILENT,  /* it is there, and has not answered */
	IGNORED, /* nobody listens, or nobody asked for it, or it was told of already */
};

/* A control socket of the directory, which is remembered from round to round. */
struct place {
	char name[CMEK_CTLSOCK_NAME_MAX];
	json_t *status;  /* as it said last; at first just the UUID of its name */
	json_t *metrics; /* its text, once it has answered in this round */
	enum state state;
	bool there;      /* in this round */
	int fd;          /* -1: nothing is awaited */
	char *in;        /* what has come of its answer */
	size_t in_len, in_room;
};

struct cmek_scrape {
	struct target *targets;
	size_t n_targets;
	struct place *places;
	size_t n_places;
	uint64_t deadline_ms;
	struct cmek_error trouble;
};

static const char *text_of(const json_t *json, const char *name)
{
	const char *text = json_string_value(json_object_get(json, name));

	return text ? text : "";
}

static const char *uuid_of(const struct place *place)
{
	return text_of(json_object_get(place->status, "volume"), "uuid");
}

static const char *mount_point_of(const struct place *place)
{
	return text_of(place->status, "mount_point");
}

/* ---- which mounts ---- */

/* Once, and not in each round: who serves for long has given up the right to look everywhere by then. */
static char *resolve(const char *name)
{
	char *path = realpath(name, NULL), *conf = NULL;

	if (path || cmek_ctl_volume_path(name, NULL, &conf, NULL) != 0)
		return path;
	path = realpath(conf, NULL);
	if (path) {
		free(conf);
		return path;
	}
	return conf;
}

int cmek_scrape_new(char *const *volumes, size_t n, struct cmek_scrape **ret_scrape, struct cmek_error *err)
{
	struct cmek_scrape *scrape = calloc(1, sizeof(*scrape));
	json_t *utf8;
	int rc = 0;

	if (scrape)
		scrape->targets = calloc(n > 0 ? n : 1, sizeof(*scrape->targets));
	if (!scrape || !scrape->targets)
		rc = cmek_error_sys(err, ENOMEM, "asking the mounts");
	for (; rc == 0 && scrape->n_targets < n; scrape->n_targets++) {
		/* It may become a label. */
		utf8 = json_string(volumes[scrape->n_targets]);
		if (!utf8)
			rc = cmek_error_set(err, CMEK_E_USAGE, EINVAL, "the name of a volume is not UTF-8");
		json_decref(utf8);
		if (rc != 0)
			break;
		scrape->targets[scrape->n_targets].name = volumes[scrape->n_targets];
		scrape->targets[scrape->n_targets].path = resolve(volumes[scrape->n_targets]);
	}
	if (rc == 0)
		*ret_scrape = scrape;
	else
		cmek_scrape_free(scrape);
	return rc;
}

static void hang_up(struct place *place)
{
	if (place->fd >= 0)
		close(place->fd);
	place->fd = -1;
	free(place->in);
	place->in = NULL;
	place->in_len = place->in_room = 0;
}

static void place_done(struct place *place)
{
	hang_up(place);
	json_decref(place->metrics);
	json_decref(place->status);
}

void cmek_scrape_free(struct cmek_scrape *scrape)
{
	size_t i;

	if (!scrape)
		return;
	for (i = 0; i < scrape->n_places; i++)
		place_done(scrape->places + i);
	free(scrape->places);
	for (i = 0; i < scrape->n_targets; i++)
		free(scrape->targets[i].path);
	free(scrape->targets);
	free(scrape);
}

/* Whether it is asked for, as far as its status tells; the targets learn of it. */
static bool is_wanted(struct cmek_scrape *scrape, const struct place *place)
{
	bool wanted = scrape->n_targets == 0;
	struct target *target;

	for (target = scrape->targets; target < scrape->targets + scrape->n_targets; target++) {
		if (!cmek_ctl_mount_is(place->status, target->name, target->path))
			continue;
		target->mounted = wanted = true;
		target->answered = target->answered || place->state == ANSWERED;
	}
	return wanted;
}

/* ---- asking ---- */

/* err: why it does not answer. */
static void is_silent(struct cmek_scrape *scrape, struct place *place, const struct cmek_error *err)
{
	const char *who = *mount_point_of(place) ? mount_point_of(place) : uuid_of(place);

	hang_up(place);
	place->state = SILENT;
	(void)cmek_error_set(&scrape->trouble, err->kind, err->err, "%s: %s", who, err->text);
}

/* The first bytes on a new connection, or the first after an answer: there is room for them. */
static int ask(const struct place *place, const char *cmd, struct cmek_error *err)
{
	json_t *request = json_pack("{s:s}", "cmd", cmd);
	char *line = request ? cmek_ctlsock_request(&request) : NULL;
	ssize_t len = line ? (ssize_t)strlen(line) : 0;
	int rc = 0;

	if (!line)
		rc = cmek_error_sys(err, ENOMEM, "asking the mount");
	else if (send(place->fd, line, (size_t)len, MSG_NOSIGNAL) != len)
		rc = cmek_error_set(err, CMEK_E_UNREACHABLE, EPIPE, "the mount does not listen");
	free(line);
	return rc;
}

static void begin_place(struct cmek_scrape *scrape, struct place *place, int dir_fd)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	int rc = cmek_ctlsock_connect_now(dir_fd, place->name, &place->fd, &err);

	place->state = ASKED_STATUS;
	if (rc == 0)
		rc = ask(place, "status", &err);
	if (rc != 0 && err.kind == CMEK_E_NOT_FOUND)
		place->state = IGNORED; /* what a mount that was killed has left */
	else if (rc != 0)
		is_silent(scrape, place, &err);
}

/* UUID.sock or UUID-PID.sock: a new status with that UUID. NULL: it is none, or there is no memory. */
static json_t *status_of_name(const char *name)
{
	size_t n = strlen(name);
	char text[CMEK_UUID_TEXT] = "";
	uint8_t uuid[16];

	if (n >= CMEK_CTLSOCK_NAME_MAX || n < sizeof(text) || strcmp(name + n - 5, ".sock") != 0)
		return NULL;
	memcpy(text, name, sizeof(text) - 1);
	if (cmek_uuid_decode(text, uuid) != 0)
		return NULL;
	return json_pack("{s:{s:s}}", "volume", "uuid", text);
}

/* NULL: the name is none of a control socket, or there are too many. */
static struct place *place_of(struct cmek_scrape *scrape, const char *name)
{
	struct place *grown;
	json_t *status;
	size_t i;

	for (i = 0; i < scrape->n_places; i++) {
		if (!strcmp(scrape->places[i].name, name))
			return scrape->places + i;
	}
	status = scrape->n_places < CMEK_SCRAPE_MAX ? status_of_name(name) : NULL;
	grown = status ? reallocarray(scrape->places, scrape->n_places + 1, sizeof(*grown)) : NULL;
	if (!grown) {
		json_decref(status);
		return NULL;
	}
	scrape->places = grown;
	grown[i] = (struct place){ .status = status, .fd = -1 };
	memcpy(grown[i].name, name, strlen(name) + 1); /* it fits, or it would not have passed for a name */
	scrape->n_places++;
	return grown + i;
}

static void forget_gone(struct cmek_scrape *scrape)
{
	size_t i, n = 0;

	for (i = 0; i < scrape->n_places; i++) {
		if (scrape->places[i].there)
			scrape->places[n++] = scrape->places[i];
		else
			place_done(scrape->places + i);
	}
	scrape->n_places = n;
}

static void drop_round(struct cmek_scrape *scrape)
{
	struct target *target;
	struct place *place;

	for (place = scrape->places; place < scrape->places + scrape->n_places; place++) {
		hang_up(place);
		json_decref(place->metrics);
		place->metrics = NULL;
		place->state = IGNORED;
		place->there = false;
	}
	for (target = scrape->targets; target < scrape->targets + scrape->n_targets; target++)
		target->mounted = target->answered = false;
	cmek_error_clear(&scrape->trouble);
}

static int begin(struct cmek_scrape *scrape, unsigned max_ms, struct cmek_error *err)
{
	struct cmek_error failure = CMEK_ERROR_INIT;
	const struct dirent *entry;
	struct place *place;
	int dir_fd = -1, rc;
	DIR *dir = NULL;

	drop_round(scrape);
	scrape->deadline_ms = cmek_now_ms() + max_ms;
	rc = cmek_ctlsock_dir(false, &dir_fd, &failure);
	if (rc == 0 && (dir = fdopendir(dir_fd)) == NULL) {
		rc = cmek_error_sys(&failure, errno, "the directory of control sockets");
		close(dir_fd);
	}
	while (dir && (entry = readdir(dir)) != NULL) {
		place = place_of(scrape, entry->d_name);
		if (place)
			place->there = true;
	}
	forget_gone(scrape);
	for (place = scrape->places; place < scrape->places + scrape->n_places; place++)
		begin_place(scrape, place, dirfd(dir));
	if (dir)
		closedir(dir);
	if (rc != 0 && failure.kind != CMEK_E_NOT_FOUND)
		return cmek_error_set(err, failure.kind, failure.err, "%s", failure.text);
	return 0;
}

/* What to poll for: at most CMEK_SCRAPE_MAX descriptors; how many. */
static size_t awaited_fds(const struct cmek_scrape *scrape, struct pollfd *fds)
{
	size_t i, n = 0;

	for (i = 0; i < scrape->n_places; i++) {
		if (scrape->places[i].fd >= 0)
			fds[n++] = (struct pollfd){ .fd = scrape->places[i].fd, .events = POLLIN };
	}
	return n;
}

/* ---- answers ---- */

/*
 * Two mounts of one volume on one mount point (one over the other, or in another namespace) would be the same samples twice,
 * as would be two that are silent and of which no more is known.
 */
static bool is_told_already(const struct cmek_scrape *scrape, const struct place *place)
{
	const struct place *other;

	for (other = scrape->places; other < scrape->places + scrape->n_places; other++) {
		if (other == place || strcmp(uuid_of(other), uuid_of(place)) != 0 ||
		    strcmp(mount_point_of(other), mount_point_of(place)) != 0)
			continue;
		if (other->state == ASKED_TEXT || other->state == ANSWERED ||
		    (other->state == SILENT && place->state == SILENT && other < place))
			return true;
	}
	return false;
}

static int take_status(struct cmek_scrape *scrape, struct place *place, json_t **status, struct cmek_error *err)
{
	if (!*text_of(json_object_get(*status, "volume"), "uuid") || !*text_of(*status, "mount_point"))
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the mount does not say which one it is");
	json_decref(place->status);
	place->status = *status;
	*status = NULL;
	if (!is_wanted(scrape, place) || is_told_already(scrape, place)) {
		hang_up(place);
		place->state = IGNORED;
		return 0;
	}
	place->state = ASKED_TEXT;
	return ask(place, "metrics", err);
}

static int take_text(struct cmek_scrape *scrape, struct place *place, json_t **metrics, struct cmek_error *err)
{
	struct cmek_promtext *alone = cmek_promtext_new();
	const char *text = json_string_value(json_object_get(*metrics, "text"));
	int rc = -ENOMEM;

	if (alone)
		rc = text ? cmek_promtext_add(alone, text) : -EINVAL;
	cmek_promtext_free(alone);
	if (rc == -ENOMEM)
		return cmek_error_sys(err, ENOMEM, "asking the mount");
	if (rc != 0)
		return cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the mount's answer has no metrics");
	place->metrics = *metrics;
	*metrics = NULL;
	place->state = ANSWERED;
	hang_up(place);
	(void)is_wanted(scrape, place); /* which it is: the targets have their answer */
	return 0;
}

static int take_line(struct cmek_scrape *scrape, struct place *place, size_t len, struct cmek_error *err)
{
	json_t *result = NULL;
	int rc = cmek_ctlsock_result(place->in, len, &result, err);

	place->in_len = 0; /* nothing more comes before the next question */
	if (rc == 0)
		rc = place->state == ASKED_STATUS ? take_status(scrape, place, &result, err) :
						    take_text(scrape, place, &result, err);
	json_decref(result);
	return rc;
}

static int make_room(struct place *place, struct cmek_error *err)
{
	size_t room = place->in_room > 0 ? place->in_room * 2 : 16384;
	char *grown;

	if (place->in_len < place->in_room)
		return 0;
	if (room > CMEK_CTLSOCK_ANSWER_MAX)
		return cmek_error_set(err, CMEK_E_LIMIT, EMSGSIZE, "the mount's answer is too long");
	grown = realloc(place->in, room);
	if (!grown)
		return cmek_error_sys(err, ENOMEM, "asking the mount");
	place->in = grown;
	place->in_room = room;
	return 0;
}

/* What there is by now. */
static void receive(struct cmek_scrape *scrape, struct place *place)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	const char *end;
	ssize_t n;
	int rc;

	while (place->fd >= 0) {
		rc = make_room(place, &err);
		n = rc == 0 ? recv(place->fd, place->in + place->in_len, place->in_room - place->in_len, 0) : 0;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (rc == 0 && n <= 0)
			rc = cmek_error_set(&err, CMEK_E_UNREACHABLE, EPIPE, "the mount ended without an answer");
		end = rc == 0 ? memchr(place->in + place->in_len, '\n', (size_t)n) : NULL;
		place->in_len += rc == 0 ? (size_t)n : 0;
		if (end)
			rc = take_line(scrape, place, (size_t)(end - place->in), &err);
		if (rc != 0)
			is_silent(scrape, place, &err);
	}
}

/* What there is to say of those that have not answered. */
static void settle(struct cmek_scrape *scrape)
{
	bool all_answered = scrape->n_targets > 0;
	const struct target *target;
	struct place *place;

	for (place = scrape->places; place < scrape->places + scrape->n_places; place++) {
		if (place->state == SILENT && (!is_wanted(scrape, place) || is_told_already(scrape, place)))
			place->state = IGNORED;
	}
	for (target = scrape->targets; target < scrape->targets + scrape->n_targets; target++) {
		all_answered = all_answered && target->answered;
		if (!target->mounted)
			(void)cmek_error_set(&scrape->trouble, CMEK_E_NOT_FOUND, ENOENT, "%s is not mounted by this user",
					     target->name);
	}
	/* Others may hang as they like. */
	if (all_answered)
		cmek_error_clear(&scrape->trouble);
}

/* Takes what there is by now. True: the round is over. */
static bool go_on(struct cmek_scrape *scrape)
{
	bool is_over = cmek_now_ms() >= scrape->deadline_ms, awaited = false;
	struct cmek_error late = CMEK_ERROR_INIT;
	struct place *place;

	(void)cmek_error_set(&late, CMEK_E_UNREACHABLE, ETIMEDOUT, "the mount did not answer in time");
	for (place = scrape->places; place < scrape->places + scrape->n_places; place++) {
		receive(scrape, place);
		if (place->fd >= 0 && is_over)
			is_silent(scrape, place, &late);
		awaited = awaited || place->fd >= 0;
	}
	if (!awaited)
		settle(scrape);
	return !awaited;
}

int cmek_scrape_run(struct cmek_scrape *scrape, unsigned max_ms, struct cmek_error *err)
{
	struct pollfd fds[CMEK_SCRAPE_MAX];
	int rc = begin(scrape, max_ms, err);
	uint64_t now_ms;
	size_t n;

	while (rc == 0 && !go_on(scrape)) {
		n = awaited_fds(scrape, fds);
		now_ms = cmek_now_ms();
		if (now_ms < scrape->deadline_ms)
			(void)poll(fds, n, (int)(scrape->deadline_ms - now_ms)); /* interrupted: looks again */
	}
	return rc;
}

/* ---- the text ---- */

size_t cmek_scrape_answered(const struct cmek_scrape *scrape)
{
	size_t i, n = 0;

	for (i = 0; i < scrape->n_places; i++)
		n += scrape->places[i].state == ANSWERED;
	return n;
}

const struct cmek_error *cmek_scrape_trouble(const struct cmek_scrape *scrape)
{
	return &scrape->trouble;
}

static void tell_up(FILE *out, const char *volume, const char *mount_point, bool up)
{
	(void)fputs("cmekfs_up{", out);
	cmek_promtext_label(out, "volume", volume);
	if (*mount_point) {
		(void)fputc(',', out);
		cmek_promtext_label(out, "mountpoint", mount_point);
	}
	(void)fprintf(out, "} %d\n", up);
}

static void tell_all_up(const struct cmek_scrape *scrape, FILE *out)
{
	const struct place *place;
	size_t i, k;

	cmek_promtext_head(out, "cmekfs_up", "gauge", "Whether the mount has answered; the other samples are of those that have.");
	for (place = scrape->places; place < scrape->places + scrape->n_places; place++) {
		if (place->state != IGNORED)
			tell_up(out, uuid_of(place), mount_point_of(place), place->state == ANSWERED);
	}
	for (i = 0; i < scrape->n_targets; i++) {
		for (k = 0; k < i && strcmp(scrape->targets[k].name, scrape->targets[i].name) != 0; k++)
			;
		if (k == i && !scrape->targets[i].mounted)
			tell_up(out, scrape->targets[i].name, "", false);
	}
}

char *cmek_scrape_text(const struct cmek_scrape *scrape)
{
	struct cmek_promtext *merged = cmek_promtext_new();
	char *text = NULL;
	size_t len, i;
	FILE *out = merged ? open_memstream(&text, &len) : NULL;
	bool failed = !out;

	for (i = 0; i < scrape->n_places && !failed; i++) {
		if (scrape->places[i].state == ANSWERED)
			failed = cmek_promtext_add(merged, text_of(scrape->places[i].metrics, "text")) != 0;
	}
	if (!failed) {
		tell_all_up(scrape, out);
		cmek_promtext_write(merged, out);
		failed = ferror(out);
	}
	if (out)
		failed = fclose(out) != 0 || failed;
	cmek_promtext_free(merged);
	if (failed) {
		free(text);
		return NULL;
	}
	return text;
}
