/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What all programs share: exit codes and remedies, command lines, and the passphrase prompt on a real terminal. */
#include "config.h"

#include <pty.h>
#include <termios.h>

#include "tests/unit/unit.h"
#include "tools/tool.h"

/* Exit codes and remedies */

/* The interface: cmekctl(8) says the same. */
static const struct {
	enum cmek_kind kind;
	int code;
} code_rows[] = {
	{ CMEK_E_NONE, 1 },	    { CMEK_E_USAGE, 2 },	 { CMEK_E_SYSTEM, 1 },
	{ CMEK_E_NOT_FOUND, 3 },    { CMEK_E_EXISTS, 4 },	 { CMEK_E_BUSY, 5 },
	{ CMEK_E_DENIED, 10 },	    { CMEK_E_EXPIRED, 11 },	 { CMEK_E_KEY_DISABLED, 12 },
	{ CMEK_E_PENDING_DELETION, 13 }, { CMEK_E_KEY_DESTROYED, 14 }, { CMEK_E_UNREACHABLE, 15 },
	{ CMEK_E_THROTTLED, 16 },   { CMEK_E_BAD_FORMAT, 20 },	 { CMEK_E_TAMPERED, 21 },
	{ CMEK_E_MISMATCH, 22 },    { CMEK_E_UNSUPPORTED, 23 },	 { CMEK_E_LIMIT, 24 },
	{ CMEK_E_KIND_MAX, 1 },
};

START_TEST(exit_codes_are_stable)
{
	ck_assert_int_eq(cmek_exit_code(code_rows[_i].kind), code_rows[_i].code);
}
END_TEST

/* Not by itself: see "started again" in section 14 of operations.md. */
static const int final_codes[] = { 2, 3, 4, 10, 14, 20, 21, 22, 23, 24 };

static bool is_final(int code)
{
	size_t i;

	for (i = 0; i < UNIT_ROWS(final_codes); i++) {
		if (final_codes[i] == code)
			return true;
	}
	return false;
}

/* The line behind `begin` in a file of the sources. */
static void source_line(const char *name, const char *begin, char *to, size_t size)
{
	const char *srcdir = getenv("CMEK_SRCDIR");
	char path[4096], line[4096];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", srcdir ? srcdir : ".", name);
	f = fopen(path, "re");
	ck_assert_msg(f != NULL, "%s", path);
	*to = '\0';
	while (!*to && fgets(line, sizeof(line), f)) {
		if (strncmp(line, begin, strlen(begin)) == 0)
			(void)snprintf(to, size, "%s", line + strlen(begin));
	}
	(void)fclose(f);
	ck_assert_msg(*to != '\0', "%s: nothing begins with %s", name, begin);
}

/* The unit starts a mount anew but after these, and the manual says the same of each. */
START_TEST(who_is_started_again)
{
	char line[4096], begin[32], *rest;
	size_t i, n = 0;
	long code;

	source_line("contrib/systemd/cmekfs@.service.in", "RestartPreventExitStatus=", line, sizeof(line));
	for (rest = line; (code = strtol(rest, &rest, 10)) != 0; n++)
		ck_assert_msg(is_final((int)code), "the unit does not start it again after %ld", code);
	ck_assert_uint_eq(n, UNIT_ROWS(final_codes));
	for (i = 0; i < UNIT_ROWS(code_rows); i++) {
		/* 15 and 16 share a row */
		code = code_rows[i].code == 16 ? 15 : code_rows[i].code;
		(void)snprintf(begin, sizeof(begin), "| %ld%s |", code, code == 15 ? ", 16" : "");
		source_line("doc/operations.md", begin, line, sizeof(line));
		ck_assert_msg(strstr(line, is_final((int)code) ? " | no | " : " | yes | ") != NULL, "%ld: %s", code, line);
	}
}
END_TEST

START_TEST(every_kind_has_a_code)
{
	ck_assert_int_eq(UNIT_ROWS(code_rows), CMEK_E_KIND_MAX + 1);
	for (int kind = 0; kind < CMEK_E_KIND_MAX; kind++)
		ck_assert_int_gt(cmek_exit_code((enum cmek_kind)kind), 0);
}
END_TEST

START_TEST(remedies_are_one_line)
{
	for (int kind = 0; kind < CMEK_E_KIND_MAX; kind++) {
		for (int e = 1; e < 134; e++) {
			struct cmek_error err = { .kind = (enum cmek_kind)kind, .err = e };
			const char *remedy = cmek_remedy(&err);

			if (remedy) {
				ck_assert_ptr_null(strchr(remedy, '\n'));
				ck_assert_int_ne(remedy[strlen(remedy) - 1], '.');
			}
		}
	}
}
END_TEST

/* Command lines. Each row runs in a child whose exit code and output are looked at. */

static const struct cmek_tool_option options[] = {
	{ 'b', "block-size", "BYTES", "size of a block" },
	{ 256, "days", "N", "number of days" },
	{ 257, "force", NULL, "go on" },
	{ 258, "config", "FILE", "the configuration" },
	{ 0, NULL, NULL, NULL },
};
static const struct cmek_tool_command command = {
	.synopsis = "[options] A [B]", .about = "Does things.", .options = options, .min_operands = 1, .max_operands = 2,
};

/* Prints what it was told; returns the exit code. */
static int show(int argc, char **argv)
{
	struct cmek_tool tool = { .program = "prog" };
	struct cmek_tool_args args;
	int id;

	cmek_tool_args_init(&args, &tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args)) != 0) {
		if (id == 256)
			printf("days=%llu ", cmek_tool_number(&args, 1, 30));
		else
			printf("%s=%s ", args.option, args.value ? args.value : "");
	}
	for (int i = 0; i < args.argc; i++)
		printf("[%s] ", args.argv[i]);
	if (tool.config_path)
		printf("config:%s ", tool.config_path);
	printf("%s%s", tool.json ? "json " : "", tool.quiet ? "quiet " : "");
	return cmek_tool_done(&tool);
}

static const struct {
	const char *argv[8];
	int code;
	const char *want; /* how the output, stdout and stderr together, begins */
} line_rows[] = {
	{ { "x", "a" }, 0, "[a] " },
	{ { "x", "a", "b" }, 0, "[a] [b] " },
	{ { "x", "-b", "5", "a" }, 0, "block-size=5 [a] " },
	{ { "x", "-b5", "a" }, 0, "block-size=5 [a] " },
	{ { "x", "a", "--block-size=5" }, 0, "block-size=5 [a] " },
	{ { "x", "a", "--force", "--json", "-q" }, 0, "force= [a] json quiet " },
	{ { "x", "--config", "/x", "a" }, 0, "config=/x [a] config:/x " },
	{ { "x", "--", "-a" }, 0, "[-a] " },
	{ { "x", "--days", "30", "a" }, 0, "days=30 [a] " },
	{ { "x", "--days", "0", "a" }, 2, "prog: --days takes a number from 1 to 30, not '0'\n" },
	{ { "x", "--days", "31", "a" }, 2, "prog: --days takes a number from 1 to 30, not '31'\n" },
	{ { "x", "--days", "1x", "a" }, 2, "prog: --days takes a number from 1 to 30, not '1x'\n" },
	{ { "x", "--days", "-1", "a" }, 2, "prog: --days takes a number from 1 to 30, not '-1'\n" },
	{ { "x" }, 2, "prog: an argument is missing: prog [options] A [B]\n  try: prog --help\n" },
	{ { "x", "a", "b", "c" }, 2, "prog: unexpected argument 'c'\n" },
	{ { "x", "--nope" }, 2, "prog: unknown or ambiguous option '--nope'\n" },
	{ { "x", "-n" }, 2, "prog: unknown option '-n'\n" },
	{ { "x", "a", "-b" }, 2, "prog: option '-b' needs an argument\n" },
	{ { "x", "a", "--days" }, 2, "prog: option '--days' needs an argument\n" },
	{ { "x", "--force=1", "a" }, 2, "prog: option '--force=1' takes no argument\n" },
	{ { "x", "--nope", "--json" }, 2,
	  "prog: unknown or ambiguous option '--nope'\n  try: prog --help\n{\n  \"error\": {\n    \"kind\": \"usage\",\n" },
	{ { "x", "--js", "a", "b", "c" }, 2, "prog: unexpected argument 'c'\n  try: prog --help\n{\n  \"error\": {\n" },
	{ { "x", "\xff", "a", "b", "--json" }, 2, "prog: unexpected argument 'b'\n  try: prog --help\n{\n  \"error\": {\n" },
	{ { "x", "a", "b", "\xff", "--json" }, 2, "prog: unexpected argument '\xff'\n  try: prog --help\n{\n  \"error\": {\n" },
	{ { "x", "--version" }, 0, "prog (cmekfs) " },
	{ { "x", "--help" }, 0, "usage: prog [options] A [B]\n\nDoes things.\n\noptions:\n  -b, --block-size BYTES " },
};

START_TEST(command_lines)
{
	char out[4096] = "", *argv[8] = { NULL };
	int fd[2], status = 0, argc = 0;
	ssize_t n;
	pid_t pid;

	for (; line_rows[_i].argv[argc]; argc++)
		argv[argc] = strdup(line_rows[_i].argv[argc]);
	ck_assert_int_eq(pipe(fd), 0);
	fflush(NULL);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		dup2(fd[1], STDOUT_FILENO);
		dup2(fd[1], STDERR_FILENO);
		close(fd[0]);
		close(fd[1]);
		_exit(show(argc, argv));
	}
	close(fd[1]);
	for (size_t len = 0; (n = read(fd[0], out + len, sizeof(out) - 1 - len)) > 0; len += (size_t)n)
		;
	close(fd[0]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(strncmp(out, line_rows[_i].want, strlen(line_rows[_i].want)) == 0, "row %d: %s", _i, out);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), line_rows[_i].code);
	for (int i = 0; i < argc; i++)
		free(argv[i]);
}
END_TEST

/* The prompt, on a pseudo-terminal of its own */

/* Reads from the terminal's other side until it has said `text`. */
static void expect(int master, char *seen, size_t max, const char *text)
{
	size_t len = strlen(seen);
	ssize_t n;

	while (!strstr(seen, text)) {
		n = read(master, seen + len, max - 1 - len);
		ck_assert_msg(n > 0, "the terminal said only \"%s\"", seen);
		len += (size_t)n;
		seen[len] = '\0';
	}
}

static bool echo_is_on(int master)
{
	struct termios term;

	ck_assert_int_eq(tcgetattr(master, &term), 0);
	return (term.c_lflag & ECHO) != 0;
}

static void on_interrupt(int sig)
{
	(void)sig;
}

/* In the child: asks, and exits with 0 when the answer is "open sesame", 7 when the kind is denied, else 1. */
static void ask_in_child(bool survive_interrupt)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	struct cmek_secret *s = NULL;
	int rc;

	signal(SIGINT, survive_interrupt ? on_interrupt : SIG_DFL);
	rc = cmek_tool_ask_passphrase(NULL, "Passphrase: ", &s, &err);
	if (rc < 0)
		_exit(err.kind == CMEK_E_DENIED ? 7 : err.err == EINTR ? 8 : 1);
	_exit(cmek_secret_len(s) == 11 && memcmp(cmek_secret_bytes(s, CMEK_KEY_TEXT), "open sesame", 11) == 0 ? 0 : 1);
}

static const struct {
	const char *typed;
	bool survive_interrupt;
	int code, signal;
} prompt_rows[] = {
	{ "open sesame\n", false, 0, 0 },
	{ "open sesXX\177\177ame\n", false, 0, 0 }, /* erased */
	{ "open sesame\r", false, 0, 0 },
	{ "\n", false, 7, 0 },
	{ "\4", false, 7, 0 },	    /* end of input */
	{ "open\3", false, 0, SIGINT },
	{ "open\3", true, 8, 0 },
};

START_TEST(prompt)
{
	char seen[1024] = "";
	int master = -1, status = 0;
	pid_t pid;

	pid = forkpty(&master, NULL, NULL, NULL);
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		ask_in_child(prompt_rows[_i].survive_interrupt);
	expect(master, seen, sizeof(seen), "Passphrase: ");
	ck_assert(!echo_is_on(master));
	ck_assert_int_eq(write(master, prompt_rows[_i].typed, strlen(prompt_rows[_i].typed)),
			 (ssize_t)strlen(prompt_rows[_i].typed));
	/* The interrupt character makes the terminal drop what waits to be read, this line's end among it or not. */
	if (!strchr(prompt_rows[_i].typed, '\3'))
		expect(master, seen, sizeof(seen), "\n");
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_ptr_null(strstr(seen, "open"));
	ck_assert(echo_is_on(master));
	if (prompt_rows[_i].signal)
		ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == prompt_rows[_i].signal);
	else
		ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == prompt_rows[_i].code, "status %#x", status);
	close(master);
}
END_TEST

static void ask_without_terminal(void *arg)
{
	(void)arg;
	setsid();
	ask_in_child(false);
}

START_TEST(no_terminal_no_prompt)
{
	int status = unit_in_child(ask_without_terminal, NULL);

	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("tool");
	TCase *tc = tcase_create("tool");

	tcase_add_loop_test(tc, exit_codes_are_stable, 0, UNIT_ROWS(code_rows));
	tcase_add_test(tc, every_kind_has_a_code);
	tcase_add_test(tc, who_is_started_again);
	tcase_add_test(tc, remedies_are_one_line);
	tcase_add_loop_test(tc, command_lines, 0, UNIT_ROWS(line_rows));
	tcase_add_loop_test(tc, prompt, 0, UNIT_ROWS(prompt_rows));
	tcase_add_test(tc, no_terminal_no_prompt);
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
