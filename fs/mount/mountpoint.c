/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Mounting, tuning and unmounting, through libfuse, mount(2) and /sys. It must not know who serves the mount, nor ask
 * the mounted file system anything that it would have to answer.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "fs/mount/fuse.h"
#include "fs/mount/mountpoint.h"

/* libfuse says why a mount failed only in its log, and its log function has no argument. */
static char libfuse_said[256];

static void keep_message(enum fuse_log_level level, const char *fmt, va_list ap)
{
	const char fuse[] = "fuse: ";

	if (level > FUSE_LOG_ERR)
		return;
	(void)vsnprintf(libfuse_said, sizeof(libfuse_said), fmt, ap); /* a cut message is still a message */
	libfuse_said[strcspn(libfuse_said, "\n")] = '\0';
	if (strncmp(libfuse_said, fuse, sizeof(fuse) - 1) == 0)
		memmove(libfuse_said, libfuse_said + sizeof(fuse) - 1, strlen(libfuse_said) - sizeof(fuse) + 2);
}

/* The text of -o for libfuse. *ret_text is malloced. */
static int option_text(const struct cmek_mount_opts *opts, bool read_only, char **ret_text)
{
	char *text = NULL, *fsname = NULL;
	int rc = 0;

	if (asprintf(&fsname, "fsname=%s", opts->fsname ? opts->fsname : opts->store) < 0)
		return -ENOMEM;
	if (fuse_opt_add_opt_escaped(&text, fsname) != 0)
		rc = -ENOMEM;
	free(fsname);
	if (rc == 0 && (fuse_opt_add_opt(&text, "subtype=cmekfs") != 0 ||
			fuse_opt_add_opt(&text, "default_permissions") != 0 ||
			fuse_opt_add_opt(&text, read_only ? "ro" : "rw") != 0))
		rc = -ENOMEM;
	if (rc == 0 && (opts->allow_other || opts->allow_root) && fuse_opt_add_opt(&text, "allow_other") != 0)
		rc = -ENOMEM;
	if (rc == 0 && *opts->kernel_flags && fuse_opt_add_opt(&text, opts->kernel_flags) != 0)
		rc = -ENOMEM;
	if (rc == 0)
		*ret_text = text;
	else
		free(text);
	return rc;
}

/* Device of what is mounted at path, from what the kernel has in memory: it must not ask a daemon that may hang. */
static int cached_device(const char *path, unsigned *ret_major, unsigned *ret_minor)
{
	struct statx st;

	if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &st) != 0)
		return -errno;
	*ret_major = st.stx_dev_major;
	*ret_minor = st.stx_dev_minor;
	return 0;
}

int cmek_mountpoint_mount(struct cmek_mountpoint *mp, const struct cmek_mount_opts *opts, bool read_only,
			  struct cmek_error *err)
{
	static const struct fuse_lowlevel_ops no_ops;
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *fuse = NULL;
	char *text = NULL;
	unsigned major;
	int rc = option_text(opts, read_only, &text);

	libfuse_said[0] = '\0';
	fuse_set_log_func(keep_message);
	if (rc == 0 && (fuse_opt_add_arg(&args, "cmekfs") != 0 || fuse_opt_add_arg(&args, "-o") != 0 ||
			fuse_opt_add_arg(&args, text) != 0))
		rc = -ENOMEM;
	if (rc != 0) {
		(void)cmek_error_sys(err, -rc, "mounting on %s", opts->mountpoint);
		goto out;
	}
	fuse = fuse_session_new(&args, &no_ops, sizeof(no_ops), NULL);
	if (!fuse || fuse_session_mount(fuse, opts->mountpoint) != 0) {
		rc = cmek_error_set(err, CMEK_E_SYSTEM, EIO, "mounting on %s: %s", opts->mountpoint,
				    libfuse_said[0] ? libfuse_said : "fusermount3 failed");
		goto out;
	}
	/* Ours from here on: the session was only a way to the descriptor, and would unmount when it pleases. */
	mp->device_fd = fcntl(fuse_session_fd(fuse), F_DUPFD_CLOEXEC, 3);
	if (mp->device_fd < 0) {
		rc = cmek_error_sys(err, errno, "mounting on %s", opts->mountpoint);
		fuse_session_unmount(fuse);
		goto out;
	}
	mp->path = opts->mountpoint;
	mp->is_mounted = true;
	if (cached_device(mp->path, &major, &mp->minor) != 0)
		mp->minor = 0;
out:
	if (fuse)
		fuse_session_destroy(fuse);
	fuse_opt_free_args(&args);
	fuse_set_log_func(NULL);
	free(text);
	return rc;
}

static void write_setting(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (cmek_write_full(fd, value, strlen(value)) != 0)
		cmek_log(CMEK_LOG_DEBUG, "%s: not set", path);
	(void)close(fd); /* sysfs has nothing buffered */
}

void cmek_mountpoint_tune(const struct cmek_mountpoint *mp, bool near_full)
{
	/* Without these reads stay at 128 KiB and few dirty pages are allowed: 75,000 against 105,000 random 8 KiB writes/s. */
	const struct {
		const char *name, *value;
	} settings[] = {
		{ "read_ahead_kb", "1024" },
		{ "strict_limit", near_full ? "1" : "0" },
		{ "max_ratio", near_full ? "1" : "40" },
	};
	char path[96];
	size_t i;

	if (geteuid() != 0 || mp->minor == 0)
		return;
	for (i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		(void)snprintf(path, sizeof(path), "/sys/class/bdi/0:%u/%s", mp->minor, settings[i].name);
		write_setting(path, settings[i].value);
	}
}

/* True when what is mounted at the path is the connection that we made, not something over or under it. */
static bool is_ours(const struct cmek_mountpoint *mp)
{
	unsigned major, minor;

	if (mp->minor == 0)
		return true;
	return cached_device(mp->path, &major, &minor) != 0 || (major == 0 && minor == mp->minor);
}

/* fusermount3 may what we may not. Returns only if it can't be run. */
static void exec_fusermount(const char *path, bool lazy)
{
	(void)execlp("fusermount3", "fusermount3", lazy ? "-uqz" : "-uq", "--", path, (char *)NULL);
}

/* The same in a child, so that there is a result to go on with: true when it succeeded. */
static bool run_fusermount(const char *path, bool lazy)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		exec_fusermount(path, lazy);
		_exit(127);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int unmount_once(const char *path, bool lazy)
{
	if (umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	if (errno == EPERM && geteuid() != 0)
		return run_fusermount(path, lazy) ? 0 : -EBUSY;
	return -errno;
}

/* The whole of the unmounting process. */
static int unmount_process(const struct cmek_mountpoint *mp, enum cmek_unmount_how how)
{
	int fd, rc;

	if (!is_ours(mp))
		return CMEK_UNMOUNT_GONE;
	if (how == CMEK_UNMOUNT_ORDERLY) {
		/* Dirty pages of files that are still open; umount itself would give up on those before it writes. */
		fd = open(mp->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0) {
			(void)syncfs(fd); /* errors belong to those who wrote, and reach them at fsync or close */
			(void)close(fd);
		}
		rc = unmount_once(mp->path, false);
		if (rc == 0 || rc == -EINVAL || rc == -ENOENT)
			return CMEK_UNMOUNT_GONE;
	}
	rc = unmount_once(mp->path, true);
	if (rc == -EINVAL || rc == -ENOENT)
		return CMEK_UNMOUNT_GONE;
	return rc == 0 ? CMEK_UNMOUNT_DETACHED : CMEK_UNMOUNT_FAILED;
}

pid_t cmek_mountpoint_unmount(const struct cmek_mountpoint *mp, enum cmek_unmount_how how)
{
	sigset_t none;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid > 0)
		return pid;
	/* It may hang on a connection that only ends when the last descriptor of it is closed. */
	if (mp->device_fd >= 0)
		(void)close(mp->device_fd);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	_exit(unmount_process(mp, how));
}

void cmek_mountpoint_close(struct cmek_mountpoint *mp)
{
	if (mp->device_fd >= 0)
		(void)close(mp->device_fd); /* closing is the purpose */
	mp->device_fd = -1;
}

void cmek_mountpoint_abort(struct cmek_mountpoint *mp)
{
	char path[96];

	cmek_mountpoint_close(mp);
	if (mp->minor == 0 || !mp->is_mounted)
		return;
	(void)snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/abort", mp->minor);
	write_setting(path, "1");
}
