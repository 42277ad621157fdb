/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The supervisor's states and its event loop. It must not touch the store, see a key, or wait for the file system that
 * it mounted: what may hang is done by a process of its own.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/notify.h"
#include "fs/mount/agent.h"
#include "fs/mount/auditor.h"
#include "fs/mount/confine.h"
#include "fs/mount/daemon.h"
#include "fs/mount/heartbeat.h"
#include "fs/mount/message.h"
#include "fs/mount/mountpoint.h"
#include "fs/mount/supervisor.h"
#include "fs/volume/ctlsock.h"

#define PROGRAM "cmekfs"
/* How long an ended or killed mount may take to be detached before we leave it. */
#define LAST_WAIT_MS 5000

enum state {
	STARTING, /* no mount yet, or one that was not answered for yet */
	RUNNING,
	STOPPING, /* unmounting in order */
	ENDED,    /* the daemon is gone */
};

struct supervisor {
	const struct cmek_mount_opts *opts;
	enum state state;
	int ready;    /* to the foreground, -1 = there is none (any more) */
	int signals;  /* signalfd */
	int daemon_socket;
	int log_pipe; /* what daemon and agent say on standard error; -1: it is ours, in the foreground */
	int audit; /* to the auditor */
	pid_t daemon, agent, auditor, unmounter;
	uint8_t volume[16]; /* known once it is unlocked, as is the label */
	char label[CMEK_LABEL_MAX + 1];
	bool was_mounted;
	bool near_full; /* the store */
	int daemon_status;
	struct cmek_mountpoint mount;
	int control_dir; /* -1: there is no control socket */
	ino_t control_ino;
	char control_name[CMEK_CTLSOCK_NAME_MAX];
	struct cmek_error error; /* the first that ends the mount */
	char line[4096];         /* an unfinished line of log_pipe */
	struct cmek_heartbeat heartbeat;
	size_t line_len;
};

/* In a child, before anything else: the signals' usual ways, the tty for nobody but who may ask on it. */
static void become_child(void)
{
	sigset_t none;

	(void)unsetenv("NOTIFY_SOCKET");
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* A service manager signals every process of the mount; only the supervisor shall heed that. */
static void ignore_signals(void)
{
	(void)signal(SIGTERM, SIG_IGN);
	(void)signal(SIGINT, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
	(void)signal(SIGQUIT, SIG_IGN);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes (ulimit -f) is EFBIG, not the end of the mount */
}

/* Standard input and output to /dev/null, standard error to fd, or left as it is when fd < 0. */
static void redirect_stdio(int fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null >= 0) {
		(void)dup2(null, STDIN_FILENO);
		(void)dup2(null, STDOUT_FILENO);
	}
	if (fd >= 0)
		(void)dup2(fd, STDERR_FILENO);
	if (null > STDERR_FILENO)
		(void)close(null);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

/*
 * Closes what was inherited from who started the mount, but standard files and the n of keep: a pipe or a directory of
 * theirs must not stay open for as long as the mount stands.
 */
static void close_inherited(const int *keep, size_t n)
{
	unsigned from = STDERR_FILENO + 1, next;
	size_t i;

	do {
		next = ~0U;
		for (i = 0; i < n; i++) {
			if (keep[i] >= (int)from && (unsigned)keep[i] < next)
				next = (unsigned)keep[i];
		}
		if (next > from)
			(void)close_range(from, next - 1, 0); /* an old kernel can't; then they stay open */
		from = next + 1;
	} while (next != ~0U);
}

/* The agent keeps the terminal until the key is there: it may have to ask for a passphrase. */
struct agent_leave {
	int sock;
	int log_fd; /* -1: foreground */
	enum cmek_log_level log_level;
};

static void agent_answered(void *arg)
{
	const struct agent_leave *leave = arg;

	ignore_signals();
	if (leave->log_fd < 0)
		return;
	redirect_stdio(leave->log_fd);
	cmek_log_to_relay(leave->log_level);
	close_inherited(&leave->sock, 1);
	(void)setsid(); /* fails for a group leader, which a forked process is not */
	if (chdir("/") != 0)
		cmek_log(CMEK_LOG_WARNING, "the working directory stays in use");
}

/* Socket pairs and the pipe of the children, closed in each process as far as they are another's. */
struct plumbing {
	int daemon[2]; /* 0: ours */
	int agent[2];  /* 0: the daemon's */
	int audit[2];  /* 0: the auditor's, 1: ours and the daemon's */
	int log[2];    /* 0: ours */
};

static int open_plumbing(struct plumbing *p, bool with_log, struct cmek_error *err)
{
	int rc;

	memset(p, -1, sizeof(*p));
	rc = cmek_message_pair(p->daemon);
	if (rc == 0)
		rc = cmek_message_pair(p->agent);
	if (rc == 0)
		rc = cmek_message_pair(p->audit);
	if (rc == 0 && with_log && pipe2(p->log, O_CLOEXEC | O_NONBLOCK) != 0)
		rc = -errno;
	return rc == 0 ? 0 : cmek_error_sys(err, -rc, "starting the mount's processes");
}

static void close_plumbing(struct plumbing *p)
{
	int i;

	for (i = 0; i < 2; i++) {
		close_fd(&p->daemon[i]);
		close_fd(&p->agent[i]);
		close_fd(&p->audit[i]);
		close_fd(&p->log[i]);
	}
}

static pid_t fork_agent(struct supervisor *s, struct plumbing *p, const struct cmek_kms_options *kms)
{
	struct agent_leave leave = { p->agent[1], p->log[1], s->opts->log_level };
	pid_t pid = fork();
	int rc;

	if (pid != 0)
		return pid;
	become_child();
	close_fd(&p->daemon[0]);
	close_fd(&p->daemon[1]);
	close_fd(&p->agent[0]);
	close_fd(&p->audit[0]);
	close_fd(&p->audit[1]);
	close_fd(&p->log[0]);
	close_fd(&s->signals);
	close_fd(&s->ready);
	rc = cmek_confine_agent(&s->error);
	if (rc == 0)
		rc = cmek_agent_serve(p->agent[1], kms, agent_answered, &leave);
	else
		cmek_log(CMEK_LOG_ERROR, "the KMS agent: %s", s->error.text);
	_exit(rc == 0 ? 0 : 1);
}

/* A child that outlives the command, and what it says goes through the supervisor. */
static void become_detached_child(const struct supervisor *s, const struct plumbing *p)
{
	become_child();
	ignore_signals();
	(void)setsid(); /* away from the terminal; fails for a group leader, which a forked process is not */
	redirect_stdio(p->log[1]);
	if (p->log[1] >= 0)
		cmek_log_to_relay(s->opts->log_level);
}

static pid_t fork_auditor(struct supervisor *s, const struct plumbing *p)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	become_detached_child(s, p);
	close_inherited(&p->audit[0], 1);
	/* A log that was given by a relative path stays where it is. */
	if (!cmek_auditor_needs_directory() && chdir("/") != 0)
		cmek_log(CMEK_LOG_WARNING, "the working directory stays in use");
	if (cmek_confine_auditor(&s->error) != 0)
		cmek_log(CMEK_LOG_WARNING, "the auditor: %s", s->error.text);
	cmek_auditor_serve(p->audit[0], s->opts);
	_exit(0);
}

static pid_t fork_daemon(struct supervisor *s, const struct plumbing *p)
{
	const int keep[] = { p->daemon[1], p->agent[0], p->audit[1] };
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	become_detached_child(s, p);
	close_inherited(keep, sizeof(keep) / sizeof(keep[0]));
	(void)umask(0); /* the kernel has applied the user's */
	if (chdir("/") != 0)
		_exit(1);
	_exit(cmek_daemon_main(s->opts, p->daemon[1], p->agent[0], p->audit[1]) == 0 ? 0 : 1);
}

/* All children, while there is no key and no thread anywhere. */
static int fork_children(struct supervisor *s, const struct cmek_kms_options *kms)
{
	struct plumbing p;
	int rc = open_plumbing(&p, s->ready >= 0, &s->error);

	if (rc == 0) {
		s->agent = fork_agent(s, &p, kms);
		if (s->agent > 0)
			s->auditor = fork_auditor(s, &p);
		if (s->auditor > 0)
			s->daemon = fork_daemon(s, &p);
		if (s->agent < 0 || s->auditor < 0 || s->daemon < 0)
			rc = cmek_error_sys(&s->error, errno, "starting the mount's processes");
	}
	s->daemon_socket = p.daemon[0];
	s->log_pipe = p.log[0];
	s->audit = p.audit[1];
	p.daemon[0] = p.log[0] = p.audit[1] = -1;
	close_plumbing(&p);
	return rc;
}

/* A line as cmek_log_to_relay() writes it; one that a library wrote has no level. */
static void say_line(const char *line)
{
	enum cmek_log_level level = CMEK_LOG_WARNING;

	if (line[0] == '<' && line[1] >= '0' && line[1] <= '7' && line[2] == '>') {
		level = (enum cmek_log_level)(line[1] - '0');
		line += 3;
	}
	cmek_log(level, "%s", line);
}

static void say_lines(struct supervisor *s)
{
	char *line = s->line, *end;

	while ((end = memchr(line, '\n', s->line_len - (size_t)(line - s->line))) != NULL) {
		*end = '\0';
		say_line(line);
		line = end + 1;
	}
	s->line_len -= (size_t)(line - s->line);
	memmove(s->line, line, s->line_len);
	if (s->line_len == sizeof(s->line))
		s->line_len = 0; /* no line of ours is that long */
}

/* What the children said on standard error goes where our own messages go. */
static void relay_log(struct supervisor *s)
{
	ssize_t n;

	while (s->log_pipe >= 0) {
		n = read(s->log_pipe, s->line + s->line_len, sizeof(s->line) - s->line_len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			close_fd(&s->log_pipe);
			return;
		}
		s->line_len += (size_t)n;
		say_lines(s);
	}
}

static void tell_audit(const struct supervisor *s, enum cmek_mount_event_type type)
{
	struct cmek_mount_event event = CMEK_MOUNT_EVENT_INIT;

	event.type = type;
	event.failure = cmek_error_is_set(&s->error) ? s->error.kind : CMEK_E_NONE;
	memcpy(event.volume, s->volume, sizeof(event.volume));
	memcpy(event.label, s->label, sizeof(event.label));
	cmek_auditor_tell(s->audit, &event);
}

/* The mount works: whoever waits in the foreground may go, and the terminal with them. */
static void get_ready(struct supervisor *s)
{
	s->state = RUNNING;
	s->was_mounted = true;
	tell_audit(s, CMEK_EVENT_MOUNT);
	cmek_mountpoint_tune(&s->mount, s->near_full);
	if (s->ready >= 0) {
		const int keep[] = { s->signals, s->daemon_socket, s->log_pipe, s->mount.device_fd, s->ready,
				     s->control_dir, s->audit };

		redirect_stdio(-1);
		(void)dup2(STDOUT_FILENO, STDERR_FILENO);
		close_inherited(keep, sizeof(keep) / sizeof(keep[0]));
		cmek_log_to_syslog(PROGRAM, s->opts->log_level);
		(void)setsid(); /* fails for a group leader, which a forked process is not */
		if (chdir("/") != 0)
			cmek_log(CMEK_LOG_WARNING, "the working directory stays in use");
		(void)cmek_message_tell(s->ready, CMEK_MSG_UP, NULL); /* if nobody waits any more, the mount stands all the same */
		close_fd(&s->ready);
	}
	cmek_heartbeat_start(&s->heartbeat, s->opts->foreground);
	cmek_log(CMEK_LOG_NOTICE, "%s is mounted on %s", s->opts->store, s->opts->mountpoint);
}

static void kill_child(pid_t pid, int sig)
{
	if (pid > 0)
		(void)kill(pid, sig);
}

/* SIGQUIT, or nothing mounted yet: no waiting for anybody. */
static void end_now(struct supervisor *s)
{
	kill_child(s->daemon, SIGKILL);
	cmek_mountpoint_abort(&s->mount);
	s->state = ENDED;
}

/*
 * Makes the control socket and hands it to the daemon, which may make none. A machine without a place for it mounts all
 * the same: data comes first.
 */
static void open_control(struct supervisor *s, const struct cmek_message *msg)
{
	struct cmek_message control = { .type = CMEK_MSG_CONTROL, .pid = getpid() };
	struct cmek_error err = CMEK_ERROR_INIT;
	int fd = -1, rc;

	rc = cmek_ctlsock_dir(true, &s->control_dir, &err);
	if (rc == 0)
		rc = cmek_ctlsock_listen(s->control_dir, msg->volume, s->opts->read_only || msg->read_only, &fd,
					 s->control_name, &err);
	if (rc != 0) {
		cmek_log(CMEK_LOG_WARNING, "%s: cmekctl will not reach this mount: %s", s->opts->mountpoint, err.text);
		close_fd(&s->control_dir);
		return;
	}
	s->control_ino = cmek_ctlsock_ino(s->control_dir, s->control_name);
	(void)cmek_message_send(s->daemon_socket, &control, fd); /* if the daemon is gone, the next message tells */
	(void)close(fd); /* the daemon has its own */
}

static void close_control(struct supervisor *s)
{
	if (s->control_dir >= 0)
		cmek_ctlsock_remove(s->control_dir, s->control_name, s->control_ino);
	close_fd(&s->control_dir);
}

static void mount_now(struct supervisor *s, const struct cmek_message *msg)
{
	struct cmek_message device = { .type = CMEK_MSG_DEVICE, .pid = getpid() };
	int rc;

	memcpy(s->volume, msg->volume, sizeof(s->volume));
	memcpy(s->label, msg->label, sizeof(s->label));
	open_control(s, msg);
	rc = cmek_mountpoint_mount(&s->mount, s->opts, s->opts->read_only || msg->read_only, &s->error);
	if (rc == 0) {
		rc = cmek_message_send(s->daemon_socket, &device, s->mount.device_fd);
		if (rc != 0)
			(void)cmek_error_sys(&s->error, -rc, "handing the mount to the storage daemon");
	}
	if (rc != 0)
		end_now(s);
}

static void hear_room(struct supervisor *s, const struct cmek_message *msg)
{
	s->near_full = msg->near_full != 0;
	if (s->state == RUNNING)
		cmek_mountpoint_tune(&s->mount, s->near_full);
}

static void hear_daemon(struct supervisor *s)
{
	struct cmek_message msg;

	if (cmek_message_receive(s->daemon_socket, &msg, NULL) != 0) {
		/* Its end; how it ended is told by its exit status. */
		close_fd(&s->daemon_socket);
		return;
	}
	if (msg.type == CMEK_MSG_FAILED && !cmek_error_is_set(&s->error))
		s->error = msg.error;
	else if (msg.type == CMEK_MSG_UNLOCKED && s->state == STARTING && !s->mount.is_mounted)
		mount_now(s, &msg);
	else if (msg.type == CMEK_MSG_UP && s->state == STARTING)
		get_ready(s);
	else if (msg.type == CMEK_MSG_UNMOUNT && s->state == RUNNING && s->unmounter <= 0)
		s->unmounter = cmek_mountpoint_unmount(&s->mount, CMEK_UNMOUNT_ORDERLY);
	else if (msg.type == CMEK_MSG_PONG)
		cmek_heartbeat_pong(&s->heartbeat, msg.alive != 0);
	else if (msg.type == CMEK_MSG_STATE)
		cmek_heartbeat_state(&s->heartbeat, msg.error.text);
	else if (msg.type == CMEK_MSG_ROOM)
		hear_room(s, &msg);
	else if (msg.type == CMEK_MSG_ENDING && s->state == RUNNING)
		cmek_heartbeat_ending(&s->heartbeat);
}

static void start_unmounting(struct supervisor *s, int sig)
{
	if (s->state == STOPPING) {
		cmek_log(CMEK_LOG_NOTICE, "still writing everything back (SIGQUIT ends at once and loses the rest)");
		return;
	}
	cmek_log(CMEK_LOG_NOTICE, "signal %d: writing everything back and unmounting %s", sig, s->opts->mountpoint);
	cmek_heartbeat_ending(&s->heartbeat);
	s->state = STOPPING;
	s->unmounter = cmek_mountpoint_unmount(&s->mount, CMEK_UNMOUNT_ORDERLY);
	if (s->unmounter < 0) {
		cmek_log(CMEK_LOG_ERROR, "can't start a process to unmount: %s", strerror((int)-s->unmounter));
		(void)cmek_message_tell(s->daemon_socket, CMEK_MSG_STOP, NULL);
	}
}

static void child_ended(struct supervisor *s, pid_t pid, int status)
{
	if (pid == s->daemon) {
		s->daemon = 0;
		s->daemon_status = status;
		s->state = ENDED;
	} else if (pid == s->agent) {
		s->agent = 0;
		/* With success it ends when the daemon does. */
		if (s->state == RUNNING && !(WIFEXITED(status) && WEXITSTATUS(status) == 0))
			cmek_log(CMEK_LOG_WARNING, "the KMS agent ended; the mount goes on without it");
	} else if (pid == s->auditor) {
		s->auditor = 0;
		if (s->state == RUNNING)
			cmek_log(CMEK_LOG_WARNING, "the auditor ended; the mount goes on without an audit log");
	} else if (pid == s->unmounter) {
		s->unmounter = 0;
		if (WIFEXITED(status) && WEXITSTATUS(status) == CMEK_UNMOUNT_GONE)
			s->mount.is_mounted = false;
		else if (WIFEXITED(status) && WEXITSTATUS(status) == CMEK_UNMOUNT_FAILED)
			cmek_log(CMEK_LOG_ERROR, "%s: can't be unmounted", s->opts->mountpoint);
		else if (s->state == STOPPING)
			cmek_log(CMEK_LOG_NOTICE, "%s: was in use; it is detached", s->opts->mountpoint);
		/* When it is gone the kernel has told the daemon already; saying it again does no harm. */
		if (s->state == STOPPING)
			(void)cmek_message_tell(s->daemon_socket, CMEK_MSG_STOP, NULL);
	}
}

static void reap(struct supervisor *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		child_ended(s, pid, status);
}

static void hear_signal(struct supervisor *s)
{
	struct signalfd_siginfo info;

	if (read(s->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	if (info.ssi_signo == SIGCHLD) {
		reap(s);
	} else if (s->state == ENDED) {
		return; /* it is ending already */
	} else if (info.ssi_signo == SIGQUIT || s->state == STARTING) {
		(void)cmek_error_set(&s->error, CMEK_E_SYSTEM, EINTR, "ended by signal %u", info.ssi_signo);
		end_now(s);
	} else {
		start_unmounting(s, (int)info.ssi_signo);
	}
}

/* Waits for one event, at most timeout_ms (-1: for ever), and deals with it. False when none came. */
static bool step(struct supervisor *s, int timeout_ms)
{
	struct pollfd fds[3] = {
		{ .fd = s->signals, .events = POLLIN },
		{ .fd = s->daemon_socket, .events = POLLIN },
		{ .fd = s->log_pipe, .events = POLLIN },
	};
	int n = poll(fds, 3, timeout_ms);

	if (n <= 0)
		return n < 0 && errno == EINTR;
	/* What the daemon said comes before the news of its death. */
	if (fds[2].revents)
		relay_log(s);
	if (fds[1].revents)
		hear_daemon(s);
	if (fds[0].revents)
		hear_signal(s);
	return true;
}

/* Steps until no child in *pid is left, for a limited time; true when it is gone. */
static bool wait_for_child(struct supervisor *s, const pid_t *pid)
{
	uint64_t start = cmek_now_ms(), gone;

	while (*pid > 0 && (gone = cmek_now_ms() - start) < LAST_WAIT_MS)
		(void)step(s, (int)(LAST_WAIT_MS - gone));
	return *pid <= 0;
}

/* How the daemon's end is judged, unless it told itself. */
static void judge_daemon(struct supervisor *s)
{
	int status = s->daemon_status;

	if (cmek_error_is_set(&s->error) || s->daemon > 0)
		return;
	if (WIFSIGNALED(status))
		(void)cmek_error_set(&s->error, CMEK_E_SYSTEM, EIO, "the storage daemon was killed by signal %d",
				     WTERMSIG(status));
	else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		(void)cmek_error_set(&s->error, CMEK_E_SYSTEM, EIO, "the storage daemon failed");
}

/* The daemon is gone or was given up: nobody shall wait for answers, and nothing of the mount stays behind. */
static void clean_up(struct supervisor *s)
{
	while (s->daemon_socket >= 0 && step(s, 0))
		; /* its last words */
	(void)wait_for_child(s, &s->daemon);
	relay_log(s);
	judge_daemon(s);
	close_control(s);
	/*
	 * The daemon's descriptor went with it, so this ends the connection. Aborting it by its number could hit the mount
	 * of somebody else, who got that number after ours was unmounted.
	 */
	cmek_mountpoint_close(&s->mount);
	if (s->unmounter > 0)
		(void)wait_for_child(s, &s->unmounter);
	if (s->mount.is_mounted) {
		s->unmounter = cmek_mountpoint_unmount(&s->mount, CMEK_UNMOUNT_LAZY);
		(void)wait_for_child(s, &s->unmounter);
	}
	/* The agent ends when the daemon's socket closes, unless a key service keeps it. */
	kill_child(s->agent, SIGTERM);
	if (!wait_for_child(s, &s->agent))
		kill_child(s->agent, SIGKILL);
	/* It ends when it has written all; one that has to wait for others who write goes on alone. */
	tell_audit(s, s->was_mounted ? CMEK_EVENT_UNMOUNT : CMEK_EVENT_MOUNT);
	close_fd(&s->audit);
	(void)wait_for_child(s, &s->auditor);
	relay_log(s);
}

static int block_signals(struct supervisor *s)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGQUIT);
	(void)sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
		return cmek_error_sys(&s->error, errno, "blocking signals");
	(void)signal(SIGPIPE, SIG_IGN);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signals >= 0 ? 0 : cmek_error_sys(&s->error, errno, "listening for signals");
}

/* A machine short of memory shall not choose the process that all databases on the mount wait for. */
static void protect_from_oom(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	(void)cmek_write_full(fd, "-800", 4); /* only root may, and it is no condition */
	(void)close(fd);
}

int cmek_supervisor_run(const struct cmek_mount_opts *opts, const struct cmek_kms_options *kms, int ready,
			struct cmek_error *err)
{
	struct supervisor s = { .opts = opts, .ready = ready, .signals = -1, .daemon_socket = -1, .log_pipe = -1,
				.control_dir = -1, .audit = -1 };
	int rc;

	s.mount.device_fd = -1;
	if (geteuid() == 0)
		protect_from_oom();
	if (opts->unlocked_memory)
		cmek_secret_allow_unlocked();
	cmek_heartbeat_init(&s.heartbeat, opts->mountpoint);
	rc = block_signals(&s);
	if (rc == 0)
		rc = fork_children(&s, kms);
	if (rc != 0)
		end_now(&s);
	while (s.state != ENDED) {
		(void)step(&s, cmek_heartbeat_wait_ms(&s.heartbeat));
		cmek_heartbeat_ping(&s.heartbeat, s.daemon_socket);
	}
	clean_up(&s);

	rc = cmek_error_is_set(&s.error) ? -s.error.err : 0;
	if (s.ready >= 0)
		(void)cmek_message_tell(s.ready, CMEK_MSG_FAILED, &s.error); /* nobody else to tell */
	else if (rc != 0 && !opts->foreground)
		cmek_log(CMEK_LOG_ERROR, "%s: the mount has ended: %s", opts->mountpoint, s.error.text);
	else
		cmek_log(CMEK_LOG_NOTICE, "%s is unmounted", opts->mountpoint);
	if (rc != 0)
		*err = s.error;
	close_fd(&s.ready);
	close_fd(&s.daemon_socket);
	close_fd(&s.log_pipe);
	close_fd(&s.signals);
	return rc;
}
