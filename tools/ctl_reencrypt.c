/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl reencrypt: has a mounted volume move what is under older data keys to the active one, and shows how far that is.
 * It must not know how it is done: it asks the mount, which goes on when nobody looks.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "tools/ctl.h"

enum { OPT_RATE = 256, OPT_GRACE, OPT_NOW, OPT_PAUSE, OPT_STOP, OPT_STATUS, OPT_BACKGROUND };

#define RATE_MAX_MB 1000000u /* a second */
#define MB 1000000u
#define GRACE_MAX_S (3650u * 86400u)
/* How long to the next look: more each time, up to the last one. */
#define LOOK_FIRST_MS 50u
#define LOOK_LAST_MS 1000u

struct reencrypt {
	const struct cmek_tool *tool;
	struct cmek_ctl_mount mount;
	const char *action;
	bool has_rate, has_grace, background;
	uint64_t rate_mb, grace_s;
	bool on_line; /* a line of progress is on the terminal, not ended */
};

static uint64_t number(const json_t *json, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(json, name));
}

static const char *text_of(const json_t *json, const char *name)
{
	const char *text = json_string_value(json_object_get(json, name));

	return text ? text : "";
}

static int ask(struct reencrypt *r, const char *action, json_t **ret_result, struct cmek_error *err)
{
	json_t *request = json_pack("{s:s, s:s}", "cmd", "reencrypt", "action", action);

	if (request && r->has_rate && strcmp(action, "start") == 0)
		json_object_set_new(request, "rate_bytes", json_integer((json_int_t)(r->rate_mb * MB)));
	if (request && r->has_grace && strcmp(action, "start") == 0)
		json_object_set_new(request, "grace_s", json_integer((json_int_t)r->grace_s));
	return cmek_ctl_mount_ask(&r->mount, request, ret_result, err);
}

static void time_left_text(const json_t *json, char *text, size_t max)
{
	const json_t *left = json_object_get(json, "seconds_left");
	uint64_t s = (uint64_t)json_integer_value(left);

	if (!json_is_integer(left))
		(void)snprintf(text, max, "-");
	else if (s >= 3600)
		(void)snprintf(text, max, "%" PRIu64 " h %02" PRIu64 " min", s / 3600, s / 60 % 60);
	else
		(void)snprintf(text, max, "%" PRIu64 " min %02" PRIu64 " s", s / 60, s % 60);
}

/* "43 %  1234 of 2900 MB  118 MB/s  0 min 14 s left" */
static void progress_text(const json_t *json, char *text, size_t max)
{
	uint64_t total = number(json, "bytes_total"), done = number(json, "bytes_done");
	unsigned percent = done < total ? (unsigned)((double)done * 100 / (double)total) : 100;
	char left[48];

	time_left_text(json, left, sizeof(left));
	if (number(json, "pass") == 0)
		(void)snprintf(text, max, "measuring the volume");
	else if (json_is_true(json_object_get(json, "proving")))
		(void)snprintf(text, max, "proving that nothing is left: %" PRIu64 " of %" PRIu64 " MB", done / MB, total / MB);
	else if (number(json, "pass") > 1)
		(void)snprintf(text, max, "looking again: %" PRIu64 " of %" PRIu64 " MB", done / MB, total / MB);
	else
		(void)snprintf(text, max, "%3u %%  %" PRIu64 " of %" PRIu64 " MB  %" PRIu64 " MB/s  %s left",
			       percent, done / MB, total / MB, number(json, "bytes_per_second") / MB, left);
}

/* JSON: one line for each look. A terminal: one line, again and again. */
static void show_progress(struct reencrypt *r, const json_t *json)
{
	char text[160];

	if (r->tool->json) {
		(void)json_dumpf(json, stdout, JSON_COMPACT);
		(void)putchar('\n');
		(void)fflush(stdout); /* what can't be written is told at the end */
	} else if (!r->tool->quiet && isatty(STDOUT_FILENO)) {
		progress_text(json, text, sizeof(text));
		(void)printf("\r%s\x1b[K", text);
		(void)fflush(stdout);
		r->on_line = true;
	}
}

static bool is_at_work(const json_t *json)
{
	return strcmp(text_of(json, "state"), "running") == 0;
}

static void say_state(struct reencrypt *r, const json_t *json)
{
	const char *state = text_of(json, "state");
	char text[160];

	if (r->on_line)
		(void)putchar('\n');
	r->on_line = false;
	progress_text(json, text, sizeof(text));
	if (strcmp(state, "running") == 0)
		cmek_tool_say(r->tool, "re-encryption is running: %s", text);
	else if (strcmp(state, "paused") == 0)
		cmek_tool_say(r->tool, "re-encryption is paused: %s", text);
	else if (strcmp(state, "idle") == 0)
		cmek_tool_say(r->tool, "re-encryption does not run");
	else if (strcmp(state, "done") == 0)
		cmek_tool_say(r->tool, "all contents and names are under data key %" PRIu64 "; %" PRIu64 " MB and %" PRIu64
			      " names were moved", number(json, "active_dek"), number(json, "bytes_moved") / MB,
			      number(json, "names_moved"));
}

/* Which files, directories and others keep older data keys. */
static void say_hindrances(const struct reencrypt *r, const json_t *json)
{
	json_t *list = json_object_get(json, "hindrances"), *h, *inode;
	size_t i;

	json_array_foreach(list, i, h) {
		inode = json_object_get(h, "inode");
		if (*text_of(h, "stored") && json_is_integer(inode))
			cmek_tool_say(r->tool, "%s in the store (inode %" JSON_INTEGER_FORMAT ") %s", text_of(h, "stored"),
				      json_integer_value(inode), text_of(h, "why"));
		else
			cmek_tool_say(r->tool, "%s %s", *text_of(h, "stored") ? text_of(h, "stored") : "something", text_of(h, "why"));
	}
	if (number(json, "n_hindrances") > json_array_size(list))
		cmek_tool_say(r->tool, "and %" PRIu64 " more", number(json, "n_hindrances") - json_array_size(list));
}

/* What became of the data keys; the mount has read the header. */
static void tell_deks(struct reencrypt *r, json_t *json)
{
	json_t *status = NULL;

	if (strcmp(text_of(json, "state"), "done") != 0 ||
	    cmek_ctl_mount_ask(&r->mount, json_pack("{s:s}", "cmd", "status"), &status, NULL) != 0)
		return;
	cmek_ctl_deks_ended(r->tool, json_object_get(status, "volume"), text_of(json, "started"), json);
	json_decref(status);
}

/* What has not come to a good end is an error. */
static int judge(const json_t *json, struct cmek_error *err)
{
	const char *state = text_of(json, "state");

	if (strcmp(state, "failed") == 0)
		return cmek_error_set(err, CMEK_E_SYSTEM, EIO, "re-encryption has stopped: %s", text_of(json, "problem"));
	if (strcmp(state, "incomplete") == 0 && number(json, "bad") + number(json, "left") == 0)
		return cmek_error_set(err, CMEK_E_SYSTEM, EIO,
				      "all is under data key %" PRIu64 ", but older ones are kept: %s", number(json, "active_dek"),
				      number(json, "n_hindrances") > 0 ? "something was put aside that may need them" :
									 "too much was renamed at the same time; try again");
	if (strcmp(state, "incomplete") == 0)
		return cmek_error_set(err, CMEK_E_SYSTEM, EIO,
				      "not everything could be moved: %" PRIu64 " blocks or names do not open, %" PRIu64
				      " files or names could not be stored anew; the log of the mount names them",
				      number(json, "bad"), number(json, "left"));
	return 0;
}

static void wait_ms(unsigned ms)
{
	const struct timespec time = { ms / 1000, ms % 1000 * 1000000L };

	(void)nanosleep(&time, NULL); /* sooner is fine */
}

static int run(struct reencrypt *r, const char *volume, struct cmek_error *err)
{
	unsigned ms = LOOK_FIRST_MS;
	bool watch = strcmp(r->action, "start") == 0 && !r->background;
	json_t *json = NULL;
	int rc = cmek_ctl_mount_find(volume, NULL, &r->mount, err);

	if (rc == -ENOENT)
		cmek_error_prefix(err, "a volume is re-encrypted while it is mounted");
	if (rc == 0)
		rc = ask(r, r->action, &json, err);
	while (rc == 0 && watch && is_at_work(json)) {
		show_progress(r, json);
		wait_ms(ms);
		ms = ms * 2 < LOOK_LAST_MS ? ms * 2 : LOOK_LAST_MS;
		json_decref(json);
		json = NULL;
		rc = ask(r, "status", &json, err);
	}
	if (rc == 0 && !r->tool->json)
		say_state(r, json);
	if (rc == 0)
		tell_deks(r, json);
	if (rc == 0 && r->tool->json)
		show_progress(r, json);
	else if (rc == 0)
		say_hindrances(r, json);
	if (r->on_line)
		(void)putchar('\n');
	if (rc == 0)
		rc = judge(json, err);
	json_decref(json);
	return rc;
}

int cmek_ctl_reencrypt(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = {
		{ OPT_RATE, "rate", "MB", "move at most so many megabytes a second (0: no limit)" },
		{ OPT_GRACE, "grace", "TIME", "keep the older data keys for so long, as in 36h or 30d [7d]" },
		{ OPT_NOW, "now", NULL, "destroy them at the end, and all that are retired" },
		{ OPT_BACKGROUND, "background", NULL, "begin, and don't wait for the end" },
		{ OPT_PAUSE, "pause", NULL, "pause it, until it is started again" },
		{ OPT_STOP, "stop", NULL, "end it; what was moved is moved" },
		{ OPT_STATUS, "status", NULL, "show how far it is" },
		{ 0, NULL, NULL, NULL },
	};
	static const struct cmek_tool_command command = {
		.synopsis = "[options] VOLUME",
		.about = "Moves what a mounted volume has under older data keys to the active one, while it is in use, proves that\n"
			 "nothing is left under them, and retires them. Begins, or goes on where it was, and shows the progress;\n"
			 "it goes on when this program ends.",
		.options = options, .min_operands = 1, .max_operands = 1,
	};
	struct reencrypt r = { .tool = tool, .mount.fd = -1, .action = "start" };
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_tool_args args;
	int id, code, n = 0;

	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args)) != 0) {
		if (id == OPT_RATE) {
			r.rate_mb = cmek_tool_number(&args, 0, RATE_MAX_MB);
			r.has_rate = true;
		} else if (id == OPT_GRACE || id == OPT_NOW) {
			if (id == OPT_GRACE && (cmek_parse_duration(args.value, &r.grace_s) || r.grace_s > GRACE_MAX_S))
				cmek_tool_usage(tool, "--grace: a time, as in 36h or 7d, ten years at most");
			if (r.has_grace)
				cmek_tool_usage(tool, "give one of --grace and --now");
			r.has_grace = true;
		} else if (id == OPT_BACKGROUND) {
			r.background = true;
		} else {
			r.action = id == OPT_PAUSE ? "pause" : id == OPT_STOP ? "stop" : "status";
			n++;
		}
	}
	if (n > 1 || (n > 0 && (r.has_rate || r.has_grace || r.background)))
		cmek_tool_usage(tool, "--pause, --stop and --status stand alone");
	code = run(&r, args.argv[0], &err) ? cmek_tool_fail(tool, &err) : cmek_tool_done(tool);
	cmek_ctl_mount_done(&r.mount);
	return code;
}
