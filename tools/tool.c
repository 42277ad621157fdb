/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Command lines, results and errors of all programs, so that they behave alike. It knows no command; what a command
 * takes is told in a struct cmek_tool_command.
 */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "kms/json.h"
#include "tools/tool.h"

#define OPTIONS_MAX 32

enum { OPT_JSON = 0x10000 };

static const struct cmek_tool_option common_options[] = {
	{ OPT_JSON, "json", NULL, "print results as JSON" },
	{ 'q', "quiet", NULL, "print only errors" },
	{ 'h', "help", NULL, "print this help" },
	{ 'V', "version", NULL, "print the version" },
	{ 0, NULL, NULL, NULL },
};

void cmek_tool_init(struct cmek_tool *tool, const char *program)
{
	int rc;

	memset(tool, 0, sizeof(*tool));
	snprintf(tool->program, sizeof(tool->program), "%s", program);
	/* A reader that went away is a failed write of stdout, told by cmek_tool_done(), not a silent death. */
	signal(SIGPIPE, SIG_IGN);
	cmek_json_init();
	rc = cmek_secret_harden_process();
	if (rc < 0) {
		fprintf(stderr, "%s: can't protect this process's memory from others: %s\n", program, strerror(-rc));
		exit(CMEK_EXIT_FAILED);
	}
}

/* The i-th option of the command, the common ones behind its own; NULL past the end. */
static const struct cmek_tool_option *option_at(const struct cmek_tool_command *command, size_t i)
{
	size_t n = 0;

	if (command->options) {
		while (command->options[n].name)
			n++;
		if (i < n)
			return &command->options[i];
	}
	i -= n;
	return i < sizeof(common_options) / sizeof(common_options[0]) - 1 ? &common_options[i] : NULL;
}

static void print_help(const struct cmek_tool *tool, const struct cmek_tool_command *command)
{
	const struct cmek_tool_option *o;

	printf("usage: %s %s\n\n%s\n\noptions:\n", tool->program, command->synopsis, command->about);
	for (size_t i = 0; (o = option_at(command, i)) != NULL; i++) {
		char left[64];

		snprintf(left, sizeof(left), "--%s%s%s", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
		if (o->id > 0 && o->id < 256)
			printf("  -%c, %-26s %s\n", o->id, left, o->help);
		else
			printf("      %-26s %s\n", left, o->help);
	}
}

/*
 * A mistake before --json shall be told as JSON, too. What looks like it may be another option's argument: then nobody
 * minds, as this decides about errors only.
 */
static bool names_json(int argc, char **argv)
{
	int i;

	for (i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (strlen(argv[i]) > 2 && strncmp(argv[i], "--json", strlen(argv[i])) == 0) /* getopt takes a beginning */
			return true;
	}
	return false;
}

void cmek_tool_args_init(struct cmek_tool_args *args, struct cmek_tool *tool, const struct cmek_tool_command *command,
			 int argc, char **argv)
{
	memset(args, 0, sizeof(*args));
	args->tool = tool;
	args->command = command;
	args->argc = argc;
	args->argv = argv;
	tool->json_named |= names_json(argc, argv);
}

static int exit_code_of(const struct cmek_tool *tool, enum cmek_kind kind)
{
	return tool->exit_code ? tool->exit_code(kind) : cmek_exit_code(kind);
}

static void print_error(const struct cmek_tool *tool, enum cmek_kind kind, const char *text, const char *remedy, bool as_json)
{
	struct cmek_tool mine = *tool;
	json_t *json;

	fprintf(stderr, "%s: %s\n", tool->program, text);
	if (remedy)
		fprintf(stderr, "  try: %s\n", remedy);
	if (!as_json)
		return;
	mine.json = true;
	json = json_pack("{s:{s:s, s:o, s:i, s:s?}}", "error", "kind", cmek_kind_name(kind), "text", cmek_json_text(text),
			 "exit_code", exit_code_of(tool, kind), "remedy", remedy);
	cmek_tool_json(&mine, &json);
	fflush(stdout);
}

void cmek_tool_usage(const struct cmek_tool *tool, const char *fmt, ...)
{
	char text[CMEK_ERROR_TEXT_MAX], remedy[sizeof(tool->program) + sizeof(" --help")];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(remedy, sizeof(remedy), "%s --help", tool->program);
	print_error(tool, CMEK_E_USAGE, text, remedy, tool->json || tool->json_named);
	exit(exit_code_of(tool, CMEK_E_USAGE));
}

/* Operands are what is left once the options are through. */
static int end_of_options(struct cmek_tool_args *args)
{
	const struct cmek_tool_command *c = args->command;

	args->argc -= optind;
	args->argv += optind;
	if (args->argc < c->min_operands)
		cmek_tool_usage(args->tool, "an argument is missing: %s %s", args->tool->program, c->synopsis);
	if (c->max_operands >= 0 && args->argc > c->max_operands)
		cmek_tool_usage(args->tool, "unexpected argument '%s'", args->argv[c->max_operands]);
	return 0;
}

static void common_option(struct cmek_tool_args *args, int id)
{
	switch (id) {
	case OPT_JSON:
		args->tool->json = true;
		break;
	case 'q':
		args->tool->quiet = true;
		break;
	case 'h':
		print_help(args->tool, args->command);
		exit(cmek_tool_done(args->tool));
	default:
		printf("%s (cmekfs) %s\n", args->tool->program, PACKAGE_VERSION);
		exit(cmek_tool_done(args->tool));
	}
}

int cmek_tool_next(struct cmek_tool_args *args)
{
	struct option longs[OPTIONS_MAX + 1] = { 0 };
	char shorts[2 + OPTIONS_MAX * 2 + 1];
	size_t n = 0, s = 0;
	const struct cmek_tool_option *o;

	/* ':' after the mode: a missing argument is told from an unknown option. */
	if (args->command->stop_at_operand)
		shorts[s++] = '+';
	shorts[s++] = ':';
	for (; n < OPTIONS_MAX && (o = option_at(args->command, n)) != NULL; n++) {
		longs[n] = (struct option){ o->name, o->arg ? required_argument : no_argument, NULL, o->id };
		if (o->id < 256) {
			shorts[s++] = (char)o->id;
			if (o->arg)
				shorts[s++] = ':';
		}
	}
	shorts[s] = '\0';
	if (!args->started) {
		args->started = true;
		optind = 0; /* glibc: start over, for commands within commands */
		opterr = 0;
	}
	for (;;) {
		int id = getopt_long(args->argc, args->argv, shorts, longs, NULL);
		const char *word = optind > 0 ? args->argv[optind - 1] : "";

		if (id == -1)
			return end_of_options(args);
		if (id == '?' && optopt > 0 && strncmp(word, "--", 2) == 0)
			cmek_tool_usage(args->tool, "option '%s' takes no argument", word);
		if (id == '?' && optopt > 0)
			cmek_tool_usage(args->tool, "unknown option '-%c'", optopt);
		if (id == '?')
			cmek_tool_usage(args->tool, "unknown or ambiguous option '%s'", word);
		if (id == ':')
			cmek_tool_usage(args->tool, "option '%s' needs an argument", word);
		for (size_t i = 0; (o = option_at(args->command, i)) != NULL; i++) {
			if (o->id == id)
				break;
		}
		args->value = optarg;
		args->option = o ? o->name : "";
		for (size_t i = 0; common_options[i].name; i++) {
			if (o == &common_options[i])
				o = NULL;
		}
		if (o && strcmp(o->name, "config") == 0)
			args->tool->config_path = optarg;
		if (o)
			return id;
		common_option(args, id);
	}
}

bool cmek_tool_principal(const struct cmek_tool_args *args, int id, struct cmek_kms_principal *principal)
{
	switch (id) {
	case CMEK_TOOL_OPT_ROLE:
		principal->role = args->value;
		return true;
	case CMEK_TOOL_OPT_EXTERNAL_ID:
		principal->external_id = args->value;
		return true;
	case CMEK_TOOL_OPT_SERVICE_ACCOUNT:
		principal->service_account = args->value;
		return true;
	case CMEK_TOOL_OPT_PROFILE:
		principal->profile = args->value;
		return true;
	default:
		return false;
	}
}

unsigned long long cmek_tool_number(const struct cmek_tool_args *args, unsigned long long min, unsigned long long max)
{
	uint64_t v = 0;

	if (cmek_parse_u64(args->value, max, &v) < 0 || v < min)
		cmek_tool_usage(args->tool, "--%s takes a number from %llu to %llu, not '%s'", args->option, min, max,
				args->value);
	return v;
}

int cmek_tool_fail(const struct cmek_tool *tool, const struct cmek_error *err)
{
	print_error(tool, err->kind, err->text[0] ? err->text : strerror(err->err), cmek_remedy(err), tool->json);
	return exit_code_of(tool, err->kind);
}

void cmek_tool_say(const struct cmek_tool *tool, const char *fmt, ...)
{
	va_list ap;

	if (tool->quiet || tool->json)
		return;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

void cmek_tool_json(const struct cmek_tool *tool, json_t **json)
{
	if (tool->json) {
		if (!*json || json_dumpf(*json, stdout, JSON_INDENT(2)) < 0) {
			fprintf(stderr, "%s: can't write the result as JSON\n", tool->program);
			exit(CMEK_EXIT_FAILED);
		}
		putchar('\n');
	}
	json_decref(*json);
	*json = NULL;
}

int cmek_tool_done(const struct cmek_tool *tool)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return CMEK_EXIT_OK;
	fprintf(stderr, "%s: can't write to standard output: %s\n", tool->program, strerror(errno));
	return CMEK_EXIT_FAILED;
}
