/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Lines of control sockets, the places where these lie, and both ends talking to each other. */
#include "config.h"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "fs/mount/control.h"
#include "fs/volume/ctlsock.h"
#include "tests/unit/unit.h"

static const uint8_t volume[16] = { 0x4b, 0x18, 0x3a };
#define UUID "4b183a00-0000-0000-0000-000000000000"

/* ---- lines ---- */

static const struct line_row {
	const char *name, *line;
	int rc;
	enum cmek_kind kind;
} line_rows[] = {
	{ "plain", "{\"v\":1,\"cmd\":\"status\"}", 0, CMEK_E_NONE },
	{ "more members", "{\"cmd\":\"lock\",\"v\":1,\"x\":{\"y\":[]}}", 0, CMEK_E_NONE },
	{ "hyphen", "{\"v\":1,\"cmd\":\"slot-add\"}", 0, CMEK_E_NONE },
	{ "nothing", "", -EINVAL, CMEK_E_BAD_FORMAT },
	{ "no object", "[1]", -EINVAL, CMEK_E_BAD_FORMAT },
	{ "no version", "{\"cmd\":\"status\"}", -EINVAL, CMEK_E_BAD_FORMAT },
	{ "no command", "{\"v\":1}", -EINVAL, CMEK_E_BAD_FORMAT },
	{ "later version", "{\"v\":2,\"cmd\":\"status\"}", -EPROTONOSUPPORT, CMEK_E_UNSUPPORTED },
	{ "command with capitals", "{\"v\":1,\"cmd\":\"Status\"}", -EINVAL, CMEK_E_BAD_FORMAT },
	{ "empty command", "{\"v\":1,\"cmd\":\"\"}", -EINVAL, CMEK_E_BAD_FORMAT },
	{ "command of 33", "{\"v\":1,\"cmd\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}", -EINVAL, CMEK_E_BAD_FORMAT },
	{ "member twice", "{\"v\":1,\"cmd\":\"a\",\"cmd\":\"b\"}", -EINVAL, CMEK_E_BAD_FORMAT },
	{ "something behind", "{\"v\":1,\"cmd\":\"a\"}{}", -EINVAL, CMEK_E_BAD_FORMAT },
};

START_TEST(test_parse)
{
	const struct line_row *row = line_rows + _i;
	struct cmek_error err = CMEK_ERROR_INIT;
	json_t *request = NULL;
	int rc = cmek_ctlsock_parse(row->line, strlen(row->line), &request, &err);

	ck_assert_msg(rc == row->rc && err.kind == row->kind, "%s: %d, %s", row->name, rc, err.text);
	ck_assert_msg((request != NULL) == (rc == 0), "%s", row->name);
	json_decref(request);
}
END_TEST

START_TEST(test_answers)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	json_t *result = json_pack("{s:s}", "text", "two\nlines");
	char *line = cmek_ctlsock_answer(&result, NULL);

	ck_assert_str_eq(line, "{\"v\":1,\"ok\":true,\"result\":{\"text\":\"two\\nlines\"}}\n");
	ck_assert_ptr_null(result);
	free(line);
	line = cmek_ctlsock_answer(&result, NULL);
	ck_assert_str_eq(line, "{\"v\":1,\"ok\":true,\"result\":null}\n");
	free(line);
	(void)cmek_error_set(&err, CMEK_E_KEY_DISABLED, EKEYREVOKED, "a \"b\"");
	line = cmek_ctlsock_answer(&result, &err);
	ck_assert_str_eq(line, "{\"v\":1,\"ok\":false,\"error\":{\"kind\":\"key-disabled\",\"errno\":128,"
			       "\"text\":\"a \\\"b\\\"\"}}\n");
	free(line);
}
END_TEST

/* ---- both ends ---- */

static struct {
	char *dir;
	int dir_fd;
	char name[CMEK_CTLSOCK_NAME_MAX];
	struct cmek_control *control;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool waiting, go;
} f;

static int verb_echo(void *arg, const struct cmek_json_at *request, json_t **ret_result, struct cmek_error *err)
{
	(void)err;
	ck_assert_ptr_eq(arg, &f);
	*ret_result = json_incref(json_object_get(request->value, "what"));
	return 0;
}

static int verb_fail(void *arg, const struct cmek_json_at *request, json_t **ret_result, struct cmek_error *err)
{
	(void)arg;
	(void)request;
	*ret_result = json_true(); /* is not sent */
	return cmek_error_set(err, CMEK_E_BUSY, EBUSY, "not now");
}

/* Until the test says so. */
static int verb_wait(void *arg, const struct cmek_json_at *request, json_t **ret_result, struct cmek_error *err)
{
	(void)arg;
	(void)request;
	(void)ret_result;
	(void)err;
	pthread_mutex_lock(&f.lock);
	f.waiting = true;
	pthread_cond_broadcast(&f.cond);
	while (!f.go)
		pthread_cond_wait(&f.cond, &f.lock);
	pthread_mutex_unlock(&f.lock);
	return 0;
}

static const struct cmek_control_verb verbs[] = {
	{ "echo", verb_echo },
	{ "fail", verb_fail },
	{ "wait", verb_wait },
	{ NULL, NULL },
};

static void setup(void)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	int listener;

	memset(&f, 0, sizeof(f));
	cmek_json_init();
	pthread_mutex_init(&f.lock, NULL);
	pthread_cond_init(&f.cond, NULL);
	f.dir = unit_tmpdir();
	setenv("CMEKFS_RUNTIME_DIR", f.dir, 1);
	ck_assert_msg(cmek_ctlsock_dir(false, &f.dir_fd, &err) == 0, "%s", err.text);
	ck_assert_msg(cmek_ctlsock_listen(f.dir_fd, volume, false, &listener, f.name, &err) == 0, "%s", err.text);
	ck_assert_str_eq(f.name, UUID ".sock");
	ck_assert_msg(cmek_control_new(listener, verbs, &f, &f.control, &err) == 0, "%s", err.text);
}

static void teardown(void)
{
	cmek_control_free(f.control);
	close(f.dir_fd);
	unit_rmtree(f.dir);
	pthread_mutex_destroy(&f.lock);
	pthread_cond_destroy(&f.cond);
}

static int dial(void)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	int fd = -1;

	ck_assert_msg(cmek_ctlsock_connect(f.dir_fd, f.name, &fd, &err) == 0, "%s", err.text);
	return fd;
}

static int ask(int fd, json_t *request, json_t **ret_result, struct cmek_error *err)
{
	*ret_result = NULL;
	return cmek_ctlsock_ask(fd, &request, 60, ret_result, err);
}

START_TEST(test_conversation)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	json_t *result;
	int fd = dial(), i;

	for (i = 0; i < 3; i++) {
		ck_assert_int_eq(ask(fd, json_pack("{s:s, s:i}", "cmd", "echo", "what", i), &result, &err), 0);
		ck_assert_int_eq(json_integer_value(result), i);
		json_decref(result);
	}
	ck_assert_int_eq(ask(fd, json_pack("{s:s}", "cmd", "fail"), &result, &err), -EBUSY);
	ck_assert_int_eq(err.kind, CMEK_E_BUSY);
	ck_assert_str_eq(err.text, "not now");
	cmek_error_clear(&err);
	ck_assert_int_eq(ask(fd, json_pack("{s:s}", "cmd", "nonsense"), &result, &err), -EOPNOTSUPP);
	ck_assert_int_eq(err.kind, CMEK_E_UNSUPPORTED);
	cmek_error_clear(&err);
	/* and goes on after that */
	ck_assert_int_eq(ask(fd, json_pack("{s:s, s:s}", "cmd", "echo", "what", "x"), &result, &err), 0);
	ck_assert_str_eq(json_string_value(result), "x");
	json_decref(result);
	close(fd);
}
END_TEST

/* Everything that comes back until the other end hangs up. */
static char *read_all(int fd)
{
	char *text = calloc(1, 65536);
	size_t used = 0;
	ssize_t n;

	ck_assert_ptr_nonnull(text);
	while ((n = recv(fd, text + used, 65535 - used, 0)) > 0)
		used += (size_t)n;
	return text;
}

START_TEST(test_bad_lines_end_it)
{
	static const char *const lines[] = { "\n", "nonsense\n{\"v\":1,\"cmd\":\"echo\"}\n", "{\"v\":7,\"cmd\":\"echo\"}\n" };
	size_t i;

	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		int fd = dial();
		char *text;

		ck_assert_int_eq(send(fd, lines[i], strlen(lines[i]), 0), (ssize_t)strlen(lines[i]));
		text = read_all(fd);
		ck_assert_msg(strstr(text, "\"ok\":false") && strchr(text, '\n') == text + strlen(text) - 1, "%s: %s",
			      lines[i], text);
		free(text);
		close(fd);
	}
}
END_TEST

START_TEST(test_too_long)
{
	char *line = malloc(CMEK_CTLSOCK_REQUEST_MAX), *text;
	int fd = dial();

	ck_assert_ptr_nonnull(line);
	memset(line, ' ', CMEK_CTLSOCK_REQUEST_MAX);
	ck_assert_int_eq(send(fd, line, CMEK_CTLSOCK_REQUEST_MAX, 0), CMEK_CTLSOCK_REQUEST_MAX);
	text = read_all(fd);
	ck_assert_ptr_nonnull(strstr(text, "\"kind\":\"limit\""));
	free(text);
	free(line);
	close(fd);
}
END_TEST

/* A request in pieces, and two in one. */
START_TEST(test_pieces)
{
	static const char line[] = "{\"v\":1,\"cmd\":\"echo\",\"what\":1}\n{\"v\":1,\"cmd\":\"echo\",\"what\":2}\n";
	int fd = dial();
	size_t i;
	char *text;

	for (i = 0; i < 10; i++)
		ck_assert_int_eq(send(fd, line + i, 1, 0), 1);
	ck_assert_int_eq(send(fd, line + i, strlen(line) - i, 0), (ssize_t)(strlen(line) - i));
	shutdown(fd, SHUT_WR);
	text = read_all(fd);
	ck_assert_str_eq(text, "{\"v\":1,\"ok\":true,\"result\":1}\n{\"v\":1,\"ok\":true,\"result\":2}\n");
	free(text);
	close(fd);
}
END_TEST

START_TEST(test_one_too_many)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	int fds[CMEK_CONTROL_CLIENTS_MAX], extra, i;
	json_t *result;

	for (i = 0; i < CMEK_CONTROL_CLIENTS_MAX; i++) {
		fds[i] = dial();
		/* An answer says that it has its place. */
		ck_assert_int_eq(ask(fds[i], json_pack("{s:s, s:i}", "cmd", "echo", "what", i), &result, &err), 0);
		json_decref(result);
	}
	extra = dial();
	ck_assert_int_eq(ask(extra, json_pack("{s:s}", "cmd", "echo"), &result, &err), -EBUSY);
	close(extra);
	for (i = 0; i < CMEK_CONTROL_CLIENTS_MAX; i++)
		close(fds[i]);
}
END_TEST

static void *let_go(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&f.lock);
	while (!f.waiting)
		pthread_cond_wait(&f.cond, &f.lock);
	f.go = true;
	pthread_cond_broadcast(&f.cond);
	pthread_mutex_unlock(&f.lock);
	return NULL;
}

/* A command that is under way is waited for, and its answer is still sent. */
START_TEST(test_end_with_command)
{
	static const char line[] = "{\"v\":1,\"cmd\":\"wait\"}\n";
	pthread_t thread;
	int fd = dial();
	char *text;

	ck_assert_int_eq(send(fd, line, strlen(line), 0), (ssize_t)strlen(line));
	pthread_mutex_lock(&f.lock);
	while (!f.waiting)
		pthread_cond_wait(&f.cond, &f.lock);
	pthread_mutex_unlock(&f.lock);
	ck_assert_int_eq(pthread_create(&thread, NULL, let_go, NULL), 0);
	cmek_control_free(f.control);
	f.control = NULL;
	pthread_join(thread, NULL);
	text = read_all(fd);
	ck_assert_str_eq(text, "{\"v\":1,\"ok\":true,\"result\":null}\n");
	free(text);
	close(fd);
}
END_TEST

/* ---- places ---- */

/* A socket without a listener is nobody's; a new mount takes its name, and the old one leaves the new one's alone. */
START_TEST(test_names)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	char name[CMEK_CTLSOCK_NAME_MAX], want[CMEK_CTLSOCK_NAME_MAX];
	ino_t old = cmek_ctlsock_ino(f.dir_fd, f.name);
	struct stat st;
	int fd, other = -1;

	ck_assert(old != 0);
	ck_assert_int_eq(fstatat(f.dir_fd, f.name, &st, 0), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0600);
	/* kept until the new one is there, so that its inode is not given to that one */
	ck_assert_int_eq(linkat(f.dir_fd, f.name, f.dir_fd, "kept", 0), 0);
	ck_assert_int_eq(cmek_ctlsock_listen(f.dir_fd, volume, false, &fd, name, &err), 0);
	ck_assert_str_eq(name, f.name);
	cmek_ctlsock_remove(f.dir_fd, f.name, old);
	ck_assert(cmek_ctlsock_ino(f.dir_fd, name) != 0);
	close(fd);
	ck_assert_int_eq(cmek_ctlsock_connect(f.dir_fd, name, &other, &err), -ENOENT);
	ck_assert_int_eq(err.kind, CMEK_E_NOT_FOUND);
	cmek_ctlsock_remove(f.dir_fd, name, cmek_ctlsock_ino(f.dir_fd, name));
	ck_assert(cmek_ctlsock_ino(f.dir_fd, name) == 0);

	ck_assert_int_eq(cmek_ctlsock_listen(f.dir_fd, volume, true, &fd, name, NULL), 0);
	snprintf(want, sizeof(want), UUID "-%ld.sock", (long)getpid());
	ck_assert_str_eq(name, want);
	close(fd);
}
END_TEST

/* A mount that is stopped accepts nobody: who will not wait learns of it at once. */
START_TEST(test_full_queue)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	char name[CMEK_CTLSOCK_NAME_MAX];
	int fd = -1, fds[64], rc = 0, n = 0;

	ck_assert_int_eq(cmek_ctlsock_listen(f.dir_fd, volume, true, &fd, name, NULL), 0);
	while (rc == 0 && n < 64) {
		rc = cmek_ctlsock_connect_now(f.dir_fd, name, fds + n, &err);
		n += rc == 0;
	}
	ck_assert_int_eq(rc, -EAGAIN);
	ck_assert_int_eq(err.kind, CMEK_E_UNREACHABLE);
	ck_assert_int_gt(n, 1);
	ck_assert(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
	while (n > 0)
		close(fds[--n]);
	close(fd);
	cmek_error_clear(&err);
	ck_assert_int_eq(cmek_ctlsock_connect_now(f.dir_fd, name, &fd, &err), -ENOENT);
	ck_assert_int_eq(err.kind, CMEK_E_NOT_FOUND);
}
END_TEST

START_TEST(test_directory)
{
	struct cmek_error err = CMEK_ERROR_INIT;
	char path[4096];
	int fd = -1;

	snprintf(path, sizeof(path), "%s/new", f.dir);
	setenv("CMEKFS_RUNTIME_DIR", path, 1);
	ck_assert_int_eq(cmek_ctlsock_dir(false, &fd, &err), -ENOENT);
	ck_assert_int_eq(err.kind, CMEK_E_NOT_FOUND);
	cmek_error_clear(&err);
	ck_assert_int_eq(cmek_ctlsock_dir(true, &fd, &err), 0);
	close(fd);
	ck_assert_int_eq(chmod(path, 0777), 0);
	ck_assert_int_eq(cmek_ctlsock_dir(true, &fd, &err), -EPERM);
	ck_assert_int_eq(err.kind, CMEK_E_DENIED);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ctlsock");
	TCase *lines = tcase_create("lines"), *ends = tcase_create("both ends");

	tcase_add_loop_test(lines, test_parse, 0, UNIT_ROWS(line_rows));
	tcase_add_test(lines, test_answers);
	suite_add_tcase(s, lines);
	tcase_add_checked_fixture(ends, setup, teardown);
	tcase_add_test(ends, test_conversation);
	tcase_add_test(ends, test_bad_lines_end_it);
	tcase_add_test(ends, test_too_long);
	tcase_add_test(ends, test_pieces);
	tcase_add_test(ends, test_one_too_many);
	tcase_add_test(ends, test_end_with_command);
	tcase_add_test(ends, test_names);
	tcase_add_test(ends, test_full_queue);
	tcase_add_test(ends, test_directory);
	suite_add_tcase(s, ends);
	return unit_run(s);
}
