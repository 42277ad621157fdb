/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the verbs on mounted volumes share: from what a user calls a volume to the control socket of its mount, and the
 * verbs that only pass a command on. It must not know what the mount does with a command.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/volume/ctlsock.h"
#include "tools/ctl.h"

/* A mount says so itself, if it can, when it is not locked in time. */
#define LATE_S 2
enum { OPT_REASON = 256, OPT_TIMEOUT };

/* A mount answers this from memory, whatever its store or its keys are doing. */
#define STATUS_S 10

static const char *text_of(const json_t *json, const char *name)
{
	const char *text = json_string_value(json_object_get(json, name));

	return text ? text : "";
}

bool cmek_ctl_mount_is(const json_t *status, const char *volume, const char *real)
{
	const json_t *header = json_object_get(status, "volume");
	const char *label = text_of(header, "label");

	if (real && (!strcmp(text_of(status, "mount_point"), real) || !strcmp(text_of(status, "store"), real)))
		return true;
	return !strcmp(text_of(header, "uuid"), volume) || (*label && !strcmp(label, volume));
}

static int ask_status(int fd, json_t **ret_status, struct cmek_error *err)
{
	json_t *request = json_pack("{s:s}", "cmd", "status");

	if (!request)
		return cmek_error_sys(err, ENOMEM, "asking the mount");
	return cmek_ctlsock_ask(fd, &request, STATUS_S, ret_status, err);
}

/* One socket of the directory. found: takes it if it is meant; two of them are one too many. */
static int look_at(int dir_fd, const char *name, const char *volume, const char *real, struct cmek_ctl_mount *found,
		   struct cmek_error *err)
{
	struct cmek_ctl_mount mount = { .fd = -1 };
	int rc = cmek_ctlsock_connect(dir_fd, name, &mount.fd, err);

	if (rc == 0)
		rc = ask_status(mount.fd, &mount.status, err);
	if (rc == 0 && cmek_ctl_mount_is(mount.status, volume, real)) {
		if (found->fd >= 0) {
			rc = cmek_error_set(err, CMEK_E_USAGE, EINVAL,
					    "%s is mounted more than once: name the mount point", volume);
		} else {
			*found = mount;
			return 0;
		}
	}
	cmek_ctl_mount_done(&mount);
	return rc;
}

static bool is_socket(const char *name)
{
	size_t n = strlen(name);

	return n > 5 && name[0] != '.' && !strcmp(name + n - 5, ".sock");
}

static int search(int dir_fd, const char *volume, const char *real, struct cmek_ctl_mount *found,
		  struct cmek_error *err)
{
	struct cmek_error trouble = CMEK_ERROR_INIT, one;
	int fd = fcntl(dir_fd, F_DUPFD_CLOEXEC, 0), rc = 0;
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;

	if (!dir) {
		rc = cmek_error_sys(err, errno, "the directory of control sockets");
		if (fd >= 0)
			close(fd);
		return rc;
	}
	rewinddir(dir); /* a copy of a descriptor goes on where the last search ended */
	while (rc == 0 && (entry = readdir(dir)) != NULL) {
		if (!is_socket(entry->d_name))
			continue;
		one = (struct cmek_error)CMEK_ERROR_INIT;
		rc = look_at(dir_fd, entry->d_name, volume, real, found, &one);
		if (rc == 0)
			continue;
		/* A mount that does not answer may be the one; it matters if no other is. */
		if (one.kind == CMEK_E_USAGE)
			*err = one;
		else if (one.kind != CMEK_E_NOT_FOUND && !cmek_error_is_set(&trouble))
			trouble = one;
		rc = one.kind == CMEK_E_USAGE ? rc : 0;
	}
	closedir(dir);
	if (rc == 0 && found->fd < 0) {
		rc = -ENOENT;
		if (cmek_error_is_set(&trouble))
			rc = cmek_error_set(err, trouble.kind, trouble.err, "%s", trouble.text);
		else
			(void)cmek_error_set(err, CMEK_E_NOT_FOUND, ENOENT, "%s is not mounted by this user", volume);
	}
	return rc;
}

int cmek_ctl_mount_find(const char *volume, const char *config_path, struct cmek_ctl_mount *ret_mount,
			struct cmek_error *err)
{
	struct cmek_ctl_mount found = { .fd = -1 };
	struct cmek_error failure = CMEK_ERROR_INIT;
	char *real = realpath(volume, NULL), *path = NULL;
	int dir_fd = -1;
	int rc = cmek_ctlsock_dir(false, &dir_fd, err);

	if (rc == 0) {
		rc = search(dir_fd, volume, real, &found, &failure);
		/* The configuration comes last: a mistake in it keeps nobody from a mount that is called otherwise. */
		if (rc == -ENOENT && !real && cmek_ctl_volume_path(volume, config_path, &path, &failure) == 0 &&
		    (real = realpath(path, NULL)) != NULL) {
			cmek_error_clear(&failure);
			rc = search(dir_fd, volume, real, &found, &failure);
		}
		if (rc != 0)
			(void)cmek_error_set(err, failure.kind, failure.err, "%s", failure.text);
	}
	free(path);
	if (dir_fd >= 0)
		close(dir_fd);
	free(real);
	if (rc == 0)
		*ret_mount = found;
	else
		cmek_ctl_mount_done(&found);
	return rc;
}

int cmek_ctl_mount_each(const uint8_t volume[16],
			int (*visit)(void *arg, struct cmek_ctl_mount *mount, struct cmek_error *err), void *arg,
			size_t *ret_n, struct cmek_error *err)
{
	struct cmek_error failure = CMEK_ERROR_INIT;
	struct cmek_ctl_mount mount;
	const struct dirent *entry;
	char uuid[CMEK_UUID_TEXT];
	int dir_fd = -1, rc;
	size_t n = 0;
	DIR *dir;

	cmek_uuid_encode(volume, uuid);
	rc = cmek_ctlsock_dir(false, &dir_fd, &failure);
	if (rc == -ENOENT) {
		*ret_n = 0;
		return 0;
	}
	if (rc != 0)
		return cmek_error_set(err, failure.kind, failure.err, "%s", failure.text);
	dir = fdopendir(dir_fd);
	if (!dir) {
		rc = cmek_error_sys(err, errno, "the directory of control sockets");
		close(dir_fd);
		return rc;
	}
	while (rc == 0 && (entry = readdir(dir)) != NULL) {
		if (!is_socket(entry->d_name) || strncmp(entry->d_name, uuid, strlen(uuid)) != 0)
			continue;
		mount = (struct cmek_ctl_mount){ .fd = -1 };
		failure = (struct cmek_error)CMEK_ERROR_INIT;
		rc = cmek_ctlsock_connect(dirfd(dir), entry->d_name, &mount.fd, &failure);
		if (rc == 0)
			rc = ask_status(mount.fd, &mount.status, &failure);
		if (rc == 0)
			rc = visit(arg, &mount, &failure);
		cmek_ctl_mount_done(&mount);
		if (rc == 0)
			n++;
		else if (failure.kind == CMEK_E_NOT_FOUND)
			rc = 0; /* what a mount that was killed has left */
		else
			rc = cmek_error_set(err, failure.kind, failure.err, "%s: %s", entry->d_name, failure.text);
	}
	closedir(dir);
	*ret_n = n;
	return rc;
}

int cmek_ctl_mount_ask(struct cmek_ctl_mount *mount, json_t *request, json_t **ret_result, struct cmek_error *err)
{
	if (!request)
		return cmek_error_sys(err, ENOMEM, "asking the mount");
	return cmek_ctlsock_ask(mount->fd, &request, 0, ret_result, err);
}

int cmek_ctl_mount_end_use(struct cmek_ctl_mount *mount, json_t *request, unsigned timeout_s, struct cmek_error *err)
{
	struct cmek_error failure = CMEK_ERROR_INIT;
	json_t *result = NULL;
	int rc;

	if (!request || json_object_set_new(request, "timeout_s", json_integer((json_int_t)timeout_s)) != 0) {
		json_decref(request);
		return cmek_error_sys(err, ENOMEM, "asking the mount");
	}
	rc = cmek_ctlsock_ask(mount->fd, &request, timeout_s + LATE_S, &result, &failure);
	json_decref(result);
	if (rc == -ETIMEDOUT && failure.kind == CMEK_E_UNREACHABLE)
		return cmek_error_set(err, CMEK_E_BUSY, ETIMEDOUT, "the mount is still putting what was written before into its "
				      "store after %u s (does it answer?), and goes on: users are refused, the keys are still in "
				      "memory", timeout_s);
	return rc == 0 ? 0 : cmek_error_set(err, failure.kind, failure.err, "%s", failure.text);
}

void cmek_ctl_mount_done(struct cmek_ctl_mount *mount)
{
	if (mount->fd >= 0)
		close(mount->fd);
	mount->fd = -1;
	json_decref(mount->status);
	mount->status = NULL;
}

/* The dirty pages of the kernel go to the mount first; only then has the mount everything. */
static int write_back(const char *mount_point, struct cmek_error *err)
{
	int fd = open(mount_point, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (fd < 0 || syncfs(fd) != 0)
		rc = cmek_error_sys(err, errno, "%s", mount_point);
	if (fd >= 0)
		close(fd);
	return rc;
}

void cmek_ctl_mount_audit(const struct cmek_tool *tool, const char *name, const json_t *status, const char *volume,
			  const char *reason, const struct cmek_error *failure)
{
	const json_t *header = json_object_get(status, "volume");
	struct cmek_audit_event event = CMEK_AUDIT_EVENT_INIT;
	uint8_t uuid[16];

	event.name = name;
	event.volume = cmek_uuid_decode(text_of(header, "uuid"), uuid) == 0 ? uuid : NULL;
	event.label = text_of(header, "label");
	event.store = text_of(status, "store")[0] ? text_of(status, "store") : volume;
	event.reason = reason;
	event.failure = failure;
	cmek_tool_audit(tool, NULL, &event);
}

/*
 * The operand's mount, a command to it, and no result but success. write_back_first: see write_back(). lock_s: it is
 * a lock, and may take so long (0: it is none). event: its name in the audit log, NULL = it is none.
 */
static int pass_on(struct cmek_tool *tool, const char *volume, json_t *request, bool write_back_first, unsigned lock_s,
		   const char *event)
{
	struct cmek_ctl_mount mount = { .fd = -1 };
	struct cmek_error err = CMEK_ERROR_INIT;
	json_t *result = NULL;
	int rc = cmek_ctl_mount_find(volume, NULL, &mount, &err);

	if (rc == 0 && write_back_first)
		rc = write_back(text_of(mount.status, "mount_point"), &err);
	if (rc == 0 && lock_s > 0)
		rc = cmek_ctl_mount_end_use(&mount, json_incref(request), lock_s, &err);
	else if (rc == 0)
		rc = cmek_ctl_mount_ask(&mount, json_incref(request), &result, &err);
	json_decref(request);
	json_decref(result);
	if (event)
		cmek_ctl_mount_audit(tool, event, mount.status, volume, NULL, &err);
	cmek_ctl_mount_done(&mount);
	if (rc != 0)
		return cmek_tool_fail(tool, &err);
	result = json_object();
	cmek_tool_json(tool, &result);
	return cmek_tool_done(tool);
}

int cmek_ctl_sync(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_command command = {
		.synopsis = "[options] VOLUME",
		.about = "Writes everything of a mounted volume to its store, durably.",
		.min_operands = 1, .max_operands = 1,
	};
	struct cmek_tool_args args;

	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while (cmek_tool_next(&args) != 0)
		; /* there are only common options here */
	return pass_on(tool, args.argv[0], json_pack("{s:s}", "cmd", "sync"), true, 0, NULL);
}

int cmek_ctl_lock(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_option options[] = {
		{ OPT_REASON, "reason", "TEXT", "what status and log say about why" },
		{ OPT_TIMEOUT, "timeout", "SECONDS", "how long what is under way may take (60)" },
		{ 0, NULL, NULL, NULL },
	};
	static const struct cmek_tool_command command = {
		.synopsis = "[options] VOLUME",
		.about = "Takes the keys of a mounted volume out of memory, after everything was written to its store. "
			 "Users get EKEYREVOKED until it is unlocked.",
		.options = options, .min_operands = 1, .max_operands = 1,
	};
	json_t *request = json_pack("{s:s}", "cmd", "lock");
	unsigned timeout_s = CMEK_CTL_LOCK_S;
	struct cmek_tool_args args;
	int id;

	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while ((id = cmek_tool_next(&args)) != 0) {
		if (id == OPT_REASON)
			json_object_set_new(request, "reason", json_string(args.value));
		else if (id == OPT_TIMEOUT)
			timeout_s = (unsigned)cmek_tool_number(&args, 1, 86400);
	}
	return pass_on(tool, args.argv[0], request, false, timeout_s, "volume.lock");
}

int cmek_ctl_unlock(struct cmek_tool *tool, int argc, char **argv)
{
	static const struct cmek_tool_command command = {
		.synopsis = "[options] VOLUME",
		.about = "Has a locked volume ask its KMS for the keys again, and go on where it was.",
		.min_operands = 1, .max_operands = 1,
	};
	struct cmek_tool_args args;

	cmek_tool_args_init(&args, tool, &command, argc, argv);
	while (cmek_tool_next(&args) != 0)
		; /* there are only common options here */
	return pass_on(tool, args.argv[0], json_pack("{s:s}", "cmd", "unlock"), false, 0, "volume.unlock");
}
