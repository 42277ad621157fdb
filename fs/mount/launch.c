/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Foreground or background: forks the supervisor and waits for its word. It must not know what a mount consists of.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/notify.h"
#include "fs/mount/launch.h"
#include "fs/mount/message.h"
#include "fs/mount/supervisor.h"

/* The one left in front of the user. */
static int wait_for_word(int ready, pid_t supervisor, struct cmek_error *err)
{
	struct cmek_message msg;
	int status;
	int rc = cmek_message_receive(ready, &msg, NULL);

	if (rc == 0 && msg.type == CMEK_MSG_UP) {
		/* The service manager started this process, so it takes the news of the other one's pid from this one. */
		cmek_notify("MAINPID=%ld\nREADY=1", (long)supervisor);
		return 0;
	}
	if (rc == 0 && msg.type == CMEK_MSG_FAILED && cmek_error_is_set(&msg.error)) {
		*err = msg.error;
		rc = -msg.error.err;
	} else {
		rc = cmek_error_set(err, CMEK_E_SYSTEM, EPIPE, "the mount's supervisor ended without saying why");
	}
	/* It has nothing left to do but to end; whoever mounts again at once should find it gone. */
	(void)waitpid(supervisor, &status, 0);
	return rc;
}

/* The mount has ended in the background. Standard error may still be the user's, who gets the message from the other side. */
static void silence(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null >= 0)
		(void)dup2(null, STDERR_FILENO);
}

int cmek_launch(const struct cmek_mount_opts *opts, const struct cmek_kms_options *kms, struct cmek_error *err)
{
	int ends[2], rc;
	pid_t pid;

	if (opts->foreground)
		return cmek_supervisor_run(opts, kms, -1, err);
	rc = cmek_message_pair(ends);
	if (rc != 0)
		return cmek_error_sys(err, -rc, "starting the mount");
	pid = fork();
	if (pid < 0) {
		rc = cmek_error_sys(err, errno, "starting the mount");
		(void)close(ends[0]); /* nothing was sent */
		(void)close(ends[1]);
		return rc;
	}
	if (pid > 0) {
		(void)close(ends[1]); /* so that the supervisor's death is the end of the connection */
		rc = wait_for_word(ends[0], pid, err);
		(void)close(ends[0]);
		return rc;
	}
	(void)close(ends[0]);
	rc = cmek_supervisor_run(opts, kms, ends[1], err);
	silence();
	return rc;
}
