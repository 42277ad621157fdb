/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl metrics: hands on the text that a mount makes, to standard output or into a file for a collector. It must not know
 * what is in that text.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "tools/ctl.h"

enum { OPT_TEXTFILE = 256 };

/* path with all of text, or as it was. */
static int replace(const char *path, const char *text, struct cmek_error *err)
{
	char *dir = strdup(path), *name = strdup(path);
	int fd = -1, rc = -EINVAL;

	if (!dir || !name)
		rc = cmek_error_sys(err, ENOMEM, "%s", path);
	else if (!*path || path[strlen(path) - 1] == '/')
		rc = cmek_error_set(err, CMEK_E_USAGE, EINVAL, "%s: not the name of a file", path);
	else if ((fd = open(dirname(dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		rc = errno == ENOENT ? cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT, "%s: no such directory", path) :
				       cmek_error_sys(err, errno, "%s", path);
	else
		rc = cmek_replace_file(fd, basename(name), text, strlen(text), 0644, err);
	if (fd >= 0)
		close(fd);
	free(name);
	free(dir);
	return rc;
}

/* The text that the mount makes: *ret_result owns it. */
static int ask(const char *volume, json_t **ret_result, struct cmek_error *err)
{
	struct cmek_ctl_mount mount = { .fd = -1 };
	json_t *result = NULL;
	int rc = cmek_ctl_mount_find(volume, NULL, &mount, err);

	if (rc == 0)
		rc = cmek_ctl_mount_ask(&mount, json_pack("{s:s}", "cmd", "metrics"), &result, err);
	if (rc == 0 && !json_is_string(json_object_get(result, "text")))
		rc = cmek_error_set(err, CMEK_E_BAD_FORMAT, EINVAL, "the mount's answer has no text");
	cmek_ctl_mount_done(&mount);
	if (rc == 0)
		*ret_result = result;
	else
		json_decref(result);
	return rc;
}

int cmek_ctl_metrics(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = {
		{ OPT_TEXTFILE, "textfile", "FILE", "replace FILE (NAME.prom, for node_exporter) in place of printing" },
		{ 0, NULL, NULL, NULL },
	};
	static const struct cmek_tool_command command = {
		.synopsis = "[options] VOLUME",
		.about = "Prints what a mounted volume counts and the state it is in, as Prometheus text.",
		.options = options, .min_operands = 1, .max_operands = 1,
	};
	struct cmek_error err = CMEK_ERROR_INIT;
	const char *textfile = NULL, *text;
	struct cmek_tool_args args;
	json_t *result = NULL;
	int rc;

	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while (cmek_tool_next(&args) != 0)
		textfile = args.value; /* there is no other option here */
	rc = ask(args.argv[0], &result, &err);
	text = json_string_value(json_object_get(result, "text"));
	if (rc == 0 && textfile)
		rc = replace(textfile, text, &err);
	else if (rc == 0 && !tool->json && !tool->quiet)
		(void)fputs(text, stdout); /* cmek_tool_done() tells errors */
	if (rc != 0) {
		json_decref(result);
		return cmek_tool_fail(tool, &err);
	}
	cmek_tool_json(tool, &result);
	return cmek_tool_done(tool);
}
