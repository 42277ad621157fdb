/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmekctl metrics: hands on the text that mounts make, to standard output or into a file for a collector; ctl_listen.c serves
 * it. It must not know what is in that text.
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
#include "tools/ctl_scrape.h"

/* For all mounts together; each answers from memory, whatever its store or its keys are doing. */
#define PATIENCE_MS 10000

enum { OPT_TEXTFILE = 256, OPT_LISTEN };

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

/*
 * The text of these mounts. What can't be told of some is in the text and said on standard error; of volumes that were named
 * at least one has to answer.
 */
static int gather(const struct cmek_tool *tool, const struct cmek_tool_args *args, char **ret_text, struct cmek_error *err)
{
	struct cmek_scrape *scrape = NULL;
	const struct cmek_error *trouble;
	char *text = NULL;
	int rc = cmek_scrape_new(args->argv, (size_t)args->argc, &scrape, err);

	if (rc == 0)
		rc = cmek_scrape_run(scrape, PATIENCE_MS, err);
	if (rc == 0) {
		trouble = cmek_scrape_trouble(scrape);
		if (cmek_error_is_set(trouble) && args->argc > 0 && cmek_scrape_answered(scrape) == 0)
			rc = cmek_error_set(err, trouble->kind, trouble->err, "%s", trouble->text);
		else if (cmek_error_is_set(trouble))
			fprintf(stderr, "%s: going on without a mount: %s\n", tool->program, trouble->text);
	}
	if (rc == 0 && (text = cmek_scrape_text(scrape)) == NULL)
		rc = cmek_error_sys(err, ENOMEM, "making the text");
	cmek_scrape_free(scrape);
	if (rc == 0)
		*ret_text = text;
	return rc;
}

int cmek_ctl_metrics(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = {
		{ OPT_TEXTFILE, "textfile", "FILE", "replace FILE (NAME.prom, for node_exporter) in place of printing" },
		{ OPT_LISTEN, "listen", "ADDR:PORT", "serve them over HTTP on a loopback address" },
		{ 0, NULL, NULL, NULL },
	};
	static const struct cmek_tool_command command = {
		.synopsis = "[options] [VOLUME...]",
		.about = "Prints what mounted volumes count and the state they are in, as Prometheus text: these, or all "
			 "that there are.",
		.options = options, .min_operands = 0, .max_operands = -1,
	};
	const char *textfile = NULL, *listen_on = NULL;
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_tool_args args;
	json_t *result;
	char *text = NULL;
	int id, rc;

	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args)) != 0) {
		if (id == OPT_TEXTFILE)
			textfile = args.value;
		else
			listen_on = args.value;
	}
	if (textfile && listen_on)
		cmek_tool_usage(tool, "--textfile and --listen are two ways to hand metrics on: take one");
	if (listen_on)
		return cmek_ctl_metrics_listen(tool, listen_on, args.argv, (size_t)args.argc);
	rc = gather(tool, &args, &text, &err);
	if (rc == 0 && textfile)
		rc = replace(textfile, text, &err);
	else if (rc == 0 && !tool->json && !tool->quiet)
		(void)fputs(text, stdout); /* cmek_tool_done() tells errors */
	if (rc != 0) {
		free(text);
		return cmek_tool_fail(tool, &err);
	}
	result = json_pack("{s:s}", "text", text);
	free(text);
	cmek_tool_json(tool, &result);
	return cmek_tool_done(tool);
}
