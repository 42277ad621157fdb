/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What a mount says of itself, for people: once, as a part of cmekctl status, or again and again. It must not ask anybody
 * but the mount: who watches for hours shall not cost calls of a KMS.
 */
#include "config.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/ctl.h"

#define EVERY_S 2
/* Home, and nothing from here to the end (ECMA-48). */
#define CLEAR "\033[H\033[J"

static json_int_t number_of(const json_t *json, const char *name)
{
	return json_integer_value(json_object_get(json, name));
}

static const char *text_of(const json_t *json, const char *name)
{
	const char *text = json_string_value(json_object_get(json, name));

	return text ? text : "";
}

/* With some keys gone and one left a volume is healthy, but there is less to fall back on. */
static void say_watch(const struct cmek_tool *tool, const json_t *watch)
{
	const json_t *slots = json_object_get(watch, "slots"), *slot;
	const char *state = text_of(watch, "state");
	char degraded[64] = "";
	size_t i, n_bad = 0;

	json_array_foreach(slots, i, slot)
		n_bad += strcmp(text_of(slot, "state"), "healthy") != 0;
	if (strcmp(state, "healthy") == 0 && n_bad > 0)
		(void)snprintf(degraded, sizeof(degraded), ", degraded (%zu of %zu slots would not open it)", n_bad,
			       json_array_size(slots));
	cmek_tool_say(tool, "key watch:   %s%s since %s, the last good answer %s; policy: %s", state, degraded,
		      text_of(watch, "since"), text_of(watch, "last_good"), text_of(watch, "action"));
}

void cmek_ctl_mount_print(const struct cmek_tool *tool, const json_t *status)
{
	const json_t *content = json_object_get(status, "content");
	const json_t *journal = json_object_get(status, "journal");
	const json_t *watch = json_object_get(status, "watch");
	const json_t *room = json_object_get(status, "room");

	if (!status)
		return;
	cmek_tool_say(tool, "state:       %s, mounted since %s by process %lld", text_of(status, "state"),
		      text_of(status, "since"), (long long)number_of(status, "pid"));
	if (*text_of(status, "locked_since"))
		cmek_tool_say(tool, "             since %s: %s", text_of(status, "locked_since"),
			      text_of(status, "lock_reason"));
	if (*text_of(status, "read_only_reason"))
		cmek_tool_say(tool, "read-only:   %s", text_of(status, "read_only_reason"));
	if (json_is_object(watch))
		say_watch(tool, watch);
	cmek_tool_say(tool, "files:       %lld in use, %lld with changes that wait to be written (%lld bytes, %.1f s)",
		      (long long)number_of(content, "files"), (long long)number_of(content, "waiting_files"),
		      (long long)number_of(content, "waiting_bytes"), json_number_value(json_object_get(content, "oldest_s")));
	if (json_is_true(json_object_get(room, "full")))
		cmek_tool_say(tool, "             THE STORE IS FULL: files that grow, and then new ones, too, are refused");
	if (number_of(room, "reserve_held_bytes") < number_of(room, "reserve_bytes"))
		cmek_tool_say(tool, "             the reserve is being used, %lld of %lld bytes are left",
			      (long long)number_of(room, "reserve_held_bytes"), (long long)number_of(room, "reserve_bytes"));
	if (!json_is_object(journal)) {
		cmek_tool_say(tool, "journal:     none");
		return;
	}
	cmek_tool_say(tool, "journal:     %lld of %lld bytes used by %lld records, the oldest %.1f s old",
		      (long long)number_of(journal, "used_bytes"), (long long)number_of(journal, "length_bytes"),
		      (long long)number_of(journal, "records"), json_number_value(json_object_get(journal, "oldest_s")));
	if (*text_of(journal, "error"))
		cmek_tool_say(tool, "             FAILED: %s; nothing more can be made durable, mount it anew",
			      text_of(journal, "error"));
}

static void print_slots(const struct cmek_tool *tool, const json_t *slots)
{
	const json_t *slot;
	size_t i;

	json_array_foreach(slots, i, slot) {
		cmek_tool_say(tool, "slot %-6lld  %s%s%s", (long long)number_of(slot, "slot"), text_of(slot, "state"),
			      *text_of(slot, "problem") ? ": " : "", text_of(slot, "problem"));
		if (*text_of(slot, "newer_version"))
			cmek_tool_say(tool, "             the key has a newer version, %s: 'cmekctl rewrap'",
				      text_of(slot, "newer_version"));
	}
}

static void print_once(const struct cmek_tool *tool, const json_t *status)
{
	const json_t *header = json_object_get(status, "volume");
	char now[32] = "";
	time_t t = time(NULL);
	struct tm tm;

	if (gmtime_r(&t, &tm))
		(void)strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%SZ", &tm);
	if (!tool->json && !tool->quiet && isatty(STDOUT_FILENO))
		(void)fputs(CLEAR, stdout);
	cmek_tool_say(tool, "%s", now);
	cmek_tool_say(tool, "volume:      %s  %s", text_of(header, "uuid"), text_of(header, "label"));
	cmek_tool_say(tool, "mounted on:  %s%s", text_of(status, "mount_point"),
		      json_is_true(json_object_get(status, "read_only")) ? ", read-only" : "");
	cmek_ctl_mount_print(tool, status);
	print_slots(tool, json_object_get(json_object_get(status, "watch"), "slots"));
}

/* What is under way (a mount that is ending, or that has no time for us) is told and waited for: true. */
static bool is_passing(const struct cmek_tool *tool, const struct cmek_error *err)
{
	if (err->kind != CMEK_E_UNREACHABLE && err->kind != CMEK_E_BUSY)
		return false;
	fprintf(stderr, "%s: %s\n", tool->program, err->text);
	return true;
}

int cmek_ctl_mount_watch(const struct cmek_tool *tool, const char *volume, const char *config_path)
{
	const struct timespec pause = { EVERY_S, 0 };
	struct cmek_ctl_mount mount;
	struct cmek_error err;
	int code = CMEK_EXIT_OK;
	json_t *json;

	/* It is looked for each time, so that it may be mounted anew meanwhile. */
	while (code == CMEK_EXIT_OK) {
		mount = (struct cmek_ctl_mount){ .fd = -1 };
		err = (struct cmek_error)CMEK_ERROR_INIT;
		if (cmek_ctl_mount_find(volume, config_path, &mount, &err) == 0) {
			print_once(tool, mount.status);
			json = json_incref(mount.status);
			cmek_tool_json(tool, &json);
			code = cmek_tool_done(tool); /* fails when nobody reads it any more */
		} else if (!is_passing(tool, &err)) {
			code = cmek_tool_fail(tool, &err);
		}
		cmek_ctl_mount_done(&mount);
		if (code == CMEK_EXIT_OK)
			(void)nanosleep(&pause, NULL); /* sooner is fine */
	}
	return code;
}
