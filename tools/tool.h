/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef CMEK_TOOLS_TOOL_H
#define CMEK_TOOLS_TOOL_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/secret.h"
#include "fs/volume/audit.h"
#include "kms/kms.h"

/*
 * What all programs share: options, output, errors with a remedy, exit codes, the passphrase prompt.
 * One thread; only programs' mains use it (libcmektool.a), no library does.
 */

/* Exit codes: stable, part of the interface. cmekctl(8), section EXIT STATUS, is their description for users. */
enum cmek_exit {
	CMEK_EXIT_OK = 0,
	CMEK_EXIT_FAILED = 1,
	CMEK_EXIT_USAGE = 2,
	CMEK_EXIT_NOT_FOUND = 3,
	CMEK_EXIT_EXISTS = 4,
	CMEK_EXIT_BUSY = 5,
	CMEK_EXIT_DENIED = 10,
	CMEK_EXIT_EXPIRED = 11,
	CMEK_EXIT_KEY_DISABLED = 12,
	CMEK_EXIT_PENDING_DELETION = 13,
	CMEK_EXIT_KEY_DESTROYED = 14,
	CMEK_EXIT_UNREACHABLE = 15,
	CMEK_EXIT_THROTTLED = 16,
	CMEK_EXIT_BAD_FORMAT = 20,
	CMEK_EXIT_TAMPERED = 21,
	CMEK_EXIT_MISMATCH = 22,
	CMEK_EXIT_UNSUPPORTED = 23,
	CMEK_EXIT_LIMIT = 24
};

int cmek_exit_code(enum cmek_kind kind);
/* What to do next about this error: one line without a full stop, or NULL when there is nothing useful to say. */
const char *cmek_remedy(const struct cmek_error *err);

/* Options that every command takes: --json, -q/--quiet, -h/--help, -V/--version. Zeroed, then filled by parsing. */
struct cmek_tool {
	char program[64]; /* "cmekctl key create": what messages begin with */
	bool json;        /* results on stdout as one JSON value */
	bool json_named;  /* --json stands on the command line: usage errors are JSON, too, wherever the mistake is */
	bool quiet;       /* no results in text, only errors */
	const char *config_path; /* argument of --config, which all commands call so; NULL = none was given */
	int (*exit_code)(enum cmek_kind kind); /* of a program that has other exit codes; NULL = cmek_exit_code() */
	atomic_bool audit_failed; /* and that was said, of a call of a key service */
	atomic_bool audit_busy;   /* somebody holds the audit log: nobody waits for it again */
};

/* Must come first in main(): harden_process, jansson's allocator, locale-free output, SIGPIPE ignored. Exits on failure. */
void cmek_tool_init(struct cmek_tool *tool, const char *program);

/* One option of a command. */
struct cmek_tool_option {
	int id;           /* its letter, or a number above 255 when it has none */
	const char *name; /* long name */
	const char *arg;  /* what its argument is called in the help, NULL = it takes none */
	const char *help; /* one line */
};

/* A command line's form. All strings are static. */
struct cmek_tool_command {
	const char *synopsis;                   /* "[options] STORE", printed after the program's name */
	const char *about;                      /* a sentence or two for --help */
	const struct cmek_tool_option *options; /* ends with a zeroed one; NULL = only the common ones */
	int min_operands, max_operands;         /* -1 = any number */
	bool stop_at_operand;                   /* options after the first operand are the sub-command's */
};

/*
 * Walks a command line: call until it returns 0, then operands are argv[0..argc-1] of the struct.
 * Common options are dealt with (--help and --version print and exit with 0). A mistake ends in cmek_tool_usage(). argv
 * may be permuted.
 */
struct cmek_tool_args {
	struct cmek_tool *tool;
	const struct cmek_tool_command *command;
	int argc;    /* operands, once cmek_tool_next() returned 0 */
	char **argv;
	const char *value; /* argument of the option just returned, NULL if it has none */
	const char *option; /* its long name, for messages */
	bool started;
};
void cmek_tool_args_init(struct cmek_tool_args *args, struct cmek_tool *tool, const struct cmek_tool_command *command,
			 int argc, char **argv);
/* The id of the next option, or 0 at the end. */
int cmek_tool_next(struct cmek_tool_args *args);
/* Prints the usage error, as cmek_tool_fail() prints errors, and exits with CMEK_EXIT_USAGE. */
void cmek_tool_usage(const struct cmek_tool *tool, const char *fmt, ...)
	__attribute__((format(printf, 2, 3), noreturn));

/* Rows for a table of options, and their reader: who to be when a KMS is asked. True when id was one of them. */
enum { CMEK_TOOL_OPT_ROLE = 0x300, CMEK_TOOL_OPT_EXTERNAL_ID, CMEK_TOOL_OPT_SERVICE_ACCOUNT, CMEK_TOOL_OPT_PROFILE };
#define CMEK_TOOL_PRINCIPAL_OPTIONS \
	{ CMEK_TOOL_OPT_ROLE, "role", "ARN", "AWS: the role to assume" }, \
	{ CMEK_TOOL_OPT_EXTERNAL_ID, "external-id", "ID", "AWS: the external id that the role asks for" }, \
	{ CMEK_TOOL_OPT_SERVICE_ACCOUNT, "service-account", "EMAIL", "Google Cloud: the account to impersonate" }, \
	{ CMEK_TOOL_OPT_PROFILE, "trusted-profile", "ID", "IBM: the trusted profile to assume" }
/* A row: which profile of the configuration. */
#define CMEK_TOOL_PROFILE_OPTION(id) { id, "profile", "NAME", "the configuration's sections [aws NAME], [gcp NAME], [ibm NAME]" }
bool cmek_tool_principal(const struct cmek_tool_args *args, int id, struct cmek_kms_principal *principal);

/* Decimal option value in min..max, else a usage error as above. */
unsigned long long cmek_tool_number(const struct cmek_tool_args *args, unsigned long long min, unsigned long long max);

/*
 * Prints "PROGRAM: text" and "  try: remedy" to stderr (and {"error": {"kind", "text", "exit_code", "remedy"}} to
 * stdout when tool->json), returns the exit code.
 */
int cmek_tool_fail(const struct cmek_tool *tool, const struct cmek_error *err);

/* A line of result on stdout, unless --quiet or --json. */
void cmek_tool_say(const struct cmek_tool *tool, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints *json, indented, and frees it (nulled). Does nothing but free unless --json. */
void cmek_tool_json(const struct cmek_tool *tool, json_t **json);
/* Flushes stdout: CMEK_EXIT_OK, or CMEK_EXIT_FAILED with a message when the results could not be written. */
int cmek_tool_done(const struct cmek_tool *tool);

/*
 * Adds an event of this program to the audit log; when that fails, it says so on standard error and the program goes on.
 * Several threads may.
 */
void cmek_tool_audit(const struct cmek_tool *tool, const char *config_path, struct cmek_audit_event *event);

/*
 * What the options of every key that a program opens begin with: passphrases are asked for on the terminal, and each
 * operation of a key service is an event of the audit log. tool must outlive the keys.
 */
struct cmek_kms_options cmek_tool_kms_options(struct cmek_tool *tool);

/*
 * cmek_kms_options.ask_passphrase: prompts on the controlling terminal with echo off; the terminal is put back before
 * a signal takes effect. arg is not used. -ENOTTY (denied): no terminal; -ECANCELED (denied): end of input.
 */
int cmek_tool_ask_passphrase(void *arg, const char *prompt, struct cmek_secret **ret_passphrase, struct cmek_error *err);

#endif
