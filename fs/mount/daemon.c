/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The life of the storage daemon, from its fork to its exit. It must not know mount points, networks or credentials: it
 * has a store, a socket to who unwraps keys, and a connection to the kernel that somebody else made.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "fs/content/content.h"
#include "fs/content/replay.h"
#include "fs/mount/agent.h"
#include "fs/mount/confine.h"
#include "fs/mount/daemon.h"
#include "fs/mount/daemon_impl.h"
#include "fs/mount/message.h"
#include "fs/mount/reply.h"
#include "fs/mount/session.h"
#include "fs/tree/tree.h"
#include "fs/volume/registry.h"
#include "fs/volume/unlock.h"
#include "fs/volume/volhdr_store.h"

/* umount(8) returns before the daemon of the mount has ended, so a new mount waits a little for the old one's lock. */
#define LOCK_WAIT_MS 5000
#define LOCK_TICK_MS 50

static void report_line(void *arg, const char *text)
{
	(void)arg;
	cmek_log(CMEK_LOG_WARNING, "%s", text);
}

static const struct cmek_report report = { .line = report_line };

/* How the kernel calls the store; "" if it does not say. */
static void find_store_path(struct daemon *d)
{
	char link[64];
	ssize_t n;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", d->store_fd);
	n = readlink(link, d->store_path, sizeof(d->store_path) - 1);
	d->store_path[n > 0 ? n : 0] = '\0';
}

/* The store's directory, and its header under the lock. */
static int open_store(struct daemon *d, struct cmek_error *err)
{
	const struct timespec tick = { 0, LOCK_TICK_MS * 1000000L };
	int waited_ms = 0, rc;

	d->store_fd = open(d->opts->store, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->store_fd < 0)
		return cmek_error_sys(err, errno, "store %s", d->opts->store);
	find_store_path(d);
	for (;;) {
		cmek_error_clear(err);
		rc = cmek_volhdr_store_open(d->store_fd, d->read_only ? CMEK_STORE_READ : CMEK_STORE_WRITE, &report,
					    &d->header, err);
		if (rc != -EBUSY || waited_ms >= LOCK_WAIT_MS)
			break;
		(void)nanosleep(&tick, NULL); /* sooner is fine */
		waited_ms += LOCK_TICK_MS;
	}
	if (rc != 0) {
		cmek_error_prefix(err, "%s", d->opts->store);
		return rc;
	}
	memcpy(d->volume, cmek_volhdr_store_header(d->header)->uuid, sizeof(d->volume));
	memcpy(d->label, cmek_volhdr_store_header(d->header)->label, sizeof(d->label));
	if (cmek_volhdr_store_header(d->header)->read_only_for && !d->read_only) {
		cmek_log(CMEK_LOG_WARNING, "the volume has features this version can only read (%s): mounting read-only",
			 cmek_volhdr_store_header(d->header)->read_only_for);
		d->read_only = true;
	}
	return 0;
}

int cmek_daemon_open_keys(struct daemon *d, struct cmek_volhdr_store *header, struct cmek_keyring **ret_ring,
			  struct cmek_error *err)
{
	struct cmek_agent_link link = { .sock = d->agent, .renewed = d->read_only ? NULL : &d->renewed,
					.counts = &d->kms_counts, .called = cmek_event_kms_call, .arg = d };
	struct cmek_unwrapper unwrapper = cmek_agent_unwrapper(&link);

	cmek_slot_done(&d->renewed);
	memset(&d->renewed, 0, sizeof(d->renewed));
	return cmek_daemon_try_slots(d, header, &unwrapper, report, ret_ring, err);
}

int cmek_daemon_try_slots(struct daemon *d, struct cmek_volhdr_store *header, const struct cmek_unwrapper *unwrapper,
			  struct cmek_report say, struct cmek_keyring **ret_ring, struct cmek_error *err)
{
	struct cmek_unlock_params params = {
		.unwrapper = *unwrapper,
		.key = d->opts->key_uri,
		.slot = d->opts->slot,
		.report = say,
	};
	struct cmek_registry *registry = NULL;
	struct cmek_pins *pins = NULL;
	int rc;

	rc = cmek_registry_new(NULL, &registry, err);
	if (rc == 0 && !d->opts->key_uri && d->store_path[0])
		rc = cmek_registry_check_place(registry, cmek_volhdr_store_header(d->header)->uuid, d->store_path, err);
	if (rc == 0)
		rc = cmek_registry_pins(registry, cmek_volhdr_store_header(header)->uuid, &pins, err);
	params.pins = pins;
	(void)pthread_mutex_lock(&d->agent_lock);
	if (rc == 0)
		rc = cmek_unlock(header, &params, ret_ring, err);
	(void)pthread_mutex_unlock(&d->agent_lock);
	if (rc != 0)
		cmek_error_prefix(err, "%s", d->opts->store);
	else /* a note for people, not worth a mount; the unlock may have put another header in the place of the first */
		(void)cmek_registry_touch(registry, cmek_volhdr_store_header(header)->uuid, NULL);
	cmek_pins_free(pins);
	cmek_registry_free(registry);
	return rc;
}

static int host_open_store(void *arg, uint64_t node, bool write)
{
	struct daemon *d = arg;

	return cmek_tree_open_store(d->tree, node, write ? O_RDWR : O_RDONLY);
}

static void host_report(void *arg, uint64_t node, int error, const char *what)
{
	const char *cause = cmek_reply_cause(error < 0 ? error : -error);
	static struct cmek_log_limit limit;
	struct daemon *d = arg;
	char where[CMEK_TREE_WHERE_ROOM];

	if (node == 0) {
		cmek_log_limited(&limit, CMEK_LOG_ERROR, "%s: %s", what, cause);
		return;
	}
	if (error == -EBADMSG || error == -ENOKEY)
		cmek_event_unauthentic(d, node, UINT64_MAX, "write");
	cmek_tree_where(d->tree, node, where);
	cmek_log_limited(&limit, CMEK_LOG_ERROR, "%s: %s: %s", where, what, cause);
}

static int host_keep(void *arg, uint64_t node)
{
	struct daemon *d = arg;

	return cmek_tree_keep(d->tree, node);
}

static void host_let_go(void *arg, uint64_t node)
{
	struct daemon *d = arg;

	cmek_tree_let_go(d->tree, node);
}

static void host_set_data(void *arg, uint64_t node, bool data)
{
	struct daemon *d = arg;

	cmek_tree_set_data(d->tree, node, data);
}

static bool host_has_data(void *arg, uint64_t node)
{
	struct daemon *d = arg;

	return cmek_tree_has_data(d->tree, node);
}

static int host_flush_store(void *arg)
{
	struct daemon *d = arg;

	return cmek_tree_syncfs(d->tree);
}

/* What is not taken for files is not taken for names either. The kernel goes on to believe in a writable mount. */
static void host_failed(void *arg)
{
	struct daemon *d = arg;

	cmek_tree_set_read_only(d->tree);
}

static void on_unauthentic(void *arg, uint64_t node, uint64_t offset, const char *what)
{
	cmek_event_unauthentic(arg, node, offset, what);
}

static void on_up(void *arg)
{
	struct daemon *d = arg;

	(void)cmek_message_tell(d->supervisor, CMEK_MSG_UP, NULL); /* if it is gone, listen() ends the mount */
}

/* The volume's own directory in the store. */
static int open_meta(struct daemon *d, struct cmek_error *err)
{
	d->meta_fd = openat(d->store_fd, ".cmekfs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (d->meta_fd < 0)
		return cmek_error_sys(err, errno, "%s/.cmekfs", d->opts->store);
	return 0;
}

/*
 * By what can wait in the kernel: 40 % of its limit, which is a fifth of the memory that is free, and when we are near the end
 * 1 % of it (cmek_mountpoint_tune()).
 */
static struct cmek_room_marks room_marks(void)
{
	struct sysinfo memory;
	uint64_t all = sysinfo(&memory) == 0 ? (uint64_t)memory.totalram * memory.mem_unit : UINT64_C(1) << 40;
	struct cmek_room_marks marks = { all / 10, all / 250 };

	return marks;
}

/* A mount is better without it than not there. */
static void watch_room(struct daemon *d)
{
	struct cmek_room_host host = { d, cmek_daemon_tell_room, cmek_daemon_tell_reserve };
	struct cmek_room_marks marks = room_marks();
	struct cmek_error err = CMEK_ERROR_INIT;

	if (!d->read_only && cmek_room_new(d->meta_fd, d->opts->reserve_bytes, &marks, &host, &d->room, &err) != 0)
		cmek_log(CMEK_LOG_WARNING, "no room of the store is kept for data that was written already: %s", err.text);
}

static void tell_replayed(const struct daemon *d, const struct cmek_replay_result *result)
{
	if (d->overlay)
		cmek_log(CMEK_LOG_WARNING,
			 "the last mount did not end in order: changes of %" PRIu64 " files are read from its journal, the next "
			 "read-write mount brings them into the store; %" PRIu64 " deleted since, %" PRIu64 " not found",
			 result->files, result->gone, result->lost);
	else if (result->journals > 0)
		cmek_log(CMEK_LOG_NOTICE,
			 "replayed the journal: %" PRIu64 " records, %" PRIu64 " files, %" PRIu64 " map pages, %" PRIu64
			 " blocks; %" PRIu64 " files back to their last size, %" PRIu64 " deleted since, %" PRIu64 " not found",
			 result->records, result->files, result->pages, result->blocks, result->rolled_back, result->gone,
			 result->lost);
}

/*
 * Before anything reads the store: what the last mount promised and had no time to write in place. When that can't be
 * written now, the mount is read-only and shows it all the same.
 */
static int replay(struct daemon *d, struct cmek_error *err)
{
	const struct cmek_volhdr *hdr = cmek_volhdr_store_header(d->header);
	struct cmek_replay_params params = {
		.store_fd = d->store_fd,
		.meta_fd = d->meta_fd,
		.block_size = hdr->block_size,
		.salvage = d->opts->salvage,
		.report = report_line,
	};
	struct cmek_replay_result result = { .journals = 0 };
	int rc = 0;

	memcpy(params.volume, hdr->uuid, sizeof(params.volume));
	if (!d->read_only)
		rc = cmek_replay(d->ring, &params, &result, err);
	if (rc == -ENOSPC && result.store_failed && cmek_room_use_reserve(d->room)) {
		cmek_error_clear(err);
		memset(&result, 0, sizeof(result));
		rc = cmek_replay(d->ring, &params, &result, err);
	}
	if (rc != 0 && result.store_failed) {
		cmek_log(CMEK_LOG_ERROR, "%s; mounting read-only, the journal stays", err->text);
		cmek_error_clear(err);
		d->read_only = true;
	}
	if (d->read_only)
		rc = cmek_replay_overlay(d->ring, &params, &d->overlay, &result, err);
	if (rc == -EUCLEAN && !params.salvage)
		cmek_log(CMEK_LOG_ERROR, "a damaged journal: with -o ro,salvage the volume can be looked at and copied without "
					 "a change, with -o salvage it goes on with what is whole");
	if (rc != 0) {
		cmek_error_prefix(err, "%s", d->opts->store);
		return rc;
	}
	tell_replayed(d, &result);
	if (result.journals > 0)
		cmek_keyring_new_session(d->ring);
	return 0;
}

static int serve_control(struct daemon *d, struct cmek_error *err)
{
	int fd = d->control_fd;

	if (fd < 0)
		return 0;
	d->control_fd = -1;
	return cmek_control_new(fd, cmek_daemon_verbs, d, &d->control, err);
}

/* Who shreds a volume tells the mounts that can be asked; one that just began was not among them, and looks by itself. */
static int check_not_shredded(struct daemon *d, struct cmek_error *err)
{
	struct cmek_error why = CMEK_ERROR_INIT;
	struct cmek_volhdr_store *header = NULL;
	int rc = cmek_daemon_read_header(d, &header, &why);

	cmek_volhdr_store_close(header);
	return rc == -EIDRM ? cmek_error_set(err, why.kind, why.err, "%s", why.text) : 0;
}

/* Everything is written anew by it, so a volume that a crash could damage, for want of a journal, is left alone. */
static int start_reencrypt(struct daemon *d, struct cmek_error *err)
{
	struct cmek_reencrypt_params params = {
		.ring = d->ring,
		.tree = d->tree,
		.content = d->content,
		.meta_fd = d->meta_fd,
		.store_path = d->store_path,
		.host = { d, cmek_daemon_retire_deks, cmek_daemon_destroy_deks },
	};

	return d->read_only || !d->opts->journal ? 0 : cmek_reencrypt_new(&params, &d->reencrypt, err);
}

/* Tree, content and session over the connection. After the last fork: salts are drawn and threads started from here on. */
static int start(struct daemon *d, int *device_fd, struct cmek_error *err)
{
	const struct cmek_volhdr *hdr = cmek_volhdr_store_header(d->header);
	struct cmek_tree_params tree_params = {
		.block_size = hdr->block_size,
		.symlink_max = hdr->symlink_max,
		.read_only = d->read_only,
		.max_fds = d->opts->fd_cache,
	};
	struct cmek_content_params content_params = {
		.block_size = hdr->block_size,
		.read_only = d->read_only,
		.overlay = d->overlay,
		.held_max_bytes = d->opts->held_max_bytes,
		.map_cache_bytes = d->opts->map_cache_bytes,
		.max_keys = d->opts->key_cache,
		.commit_ms = d->opts->commit_ms,
		.no_journal = !d->opts->journal,
		.journal_bytes = d->opts->journal_bytes,
		.dek_next = hdr->dek_next,
		.store_path = d->store_path,
	};
	struct cmek_content_host host = { d, host_open_store, host_keep, host_let_go, host_report, host_set_data,
					  host_has_data, host_flush_store, host_failed };
	struct cmek_session_params session_params = {
		.writeback = d->opts->writeback && !d->read_only,
		.read_only = d->read_only,
		.allow_root = d->opts->allow_root,
		.max_threads = d->opts->max_threads,
		.up = on_up,
		.unauthentic = on_unauthentic,
		.arg = d,
	};
	int fd, rc;

	content_params.room = session_params.room = d->room;
	memcpy(content_params.volume, hdr->uuid, sizeof(content_params.volume));
	content_params.meta_fd = d->meta_fd;
	rc = cmek_tree_new(d->store_fd, d->ring, &tree_params, &d->tree, err);
	if (rc != 0)
		return rc;
	d->store_fd = -1;
	rc = cmek_events_start(d, err);
	if (rc != 0)
		return rc;
	rc = cmek_content_new(d->ring, &host, &content_params, &d->content, err);
	if (rc != 0)
		return rc;
	fd = *device_fd;
	*device_fd = -1;
	rc = cmek_session_new(fd, d->tree, d->content, &session_params, &d->session, err);
	if (rc == 0)
		rc = start_reencrypt(d, err);
	if (rc == 0 && !d->opts->watch.off)
		rc = cmek_watcher_start(d, &d->watcher, err);
	if (rc == 0)
		rc = serve_control(d, err);
	return rc == 0 ? check_not_shredded(d, err) : rc;
}

/* Waits for the supervisor to say STOP, or to be gone, which is no reason to lose what is not in the store yet. */
static void *listen_to_supervisor(void *arg)
{
	struct daemon *d = arg;
	struct cmek_message msg;
	int rc;

	while ((rc = cmek_message_receive(d->supervisor, &msg, NULL)) == 0 && msg.type != CMEK_MSG_STOP) {
		if (msg.type == CMEK_MSG_PING)
			cmek_daemon_answer_ping(d);
	}
	if (atomic_load(&d->ending))
		return NULL;
	if (rc != 0)
		cmek_log(CMEK_LOG_ERROR, "the supervisor is gone: committing and ending the mount");
	/* Not while it is being locked: that needs the serving threads. */
	(void)pthread_mutex_lock(&d->life_lock);
	atomic_store(&d->ending, true);
	(void)pthread_mutex_unlock(&d->life_lock);
	cmek_session_stop(d->session);
	return NULL;
}

static int serve(struct daemon *d, struct cmek_error *err)
{
	int rc = pthread_create(&d->listener, NULL, listen_to_supervisor, d);

	if (rc != 0)
		return cmek_error_sys(err, rc, "starting a thread");
	d->listening = true;
	rc = cmek_session_run(d->session);
	(void)cmek_message_tell(d->supervisor, CMEK_MSG_ENDING, NULL); /* if it is gone, it needs no news */
	if (rc != 0)
		return cmek_error_sys(err, -rc, "the FUSE connection");
	return 0;
}

/* Everything into the store; then keys, store and lock go, in the reverse order of their coming. */
static int finish(struct daemon *d, struct cmek_error *err)
{
	int rc;

	if (d->listening) {
		atomic_store(&d->ending, true);
		(void)shutdown(d->supervisor, SHUT_RD); /* wakes it; what we have to say can still be sent */
		(void)pthread_join(d->listener, NULL);
	}
	/* Commands look at the watch, and some wait for the agent as the watch does. */
	(void)shutdown(d->agent, SHUT_RDWR);
	cmek_control_free(d->control);
	cmek_watcher_stop(d->watcher);
	cmek_reencrypt_free(d->reencrypt);
	cmek_session_free(d->session);
	rc = cmek_content_free(d->content);
	cmek_room_free(d->room);
	if (rc == 0 && d->tree && !d->read_only)
		rc = cmek_tree_syncfs(d->tree);
	if (rc != 0)
		rc = cmek_error_sys(err, -rc, "writing the last changes to the store");
	cmek_overlay_free(d->overlay);
	cmek_events_stop(d);
	cmek_tree_free(d->tree);
	cmek_keyring_free(d->ring);
	cmek_slot_done(&d->renewed);
	cmek_volhdr_store_close(d->header);
	if (d->meta_fd >= 0)
		(void)close(d->meta_fd); /* a directory, as the store */
	if (d->store_fd >= 0)
		(void)close(d->store_fd);
	if (d->control_fd >= 0)
		(void)close(d->control_fd); /* nobody was served */
	return rc;
}

/* Asks the supervisor to mount, and waits for the connection. */
static int receive_device(struct daemon *d, int *ret_fd, struct cmek_error *err)
{
	struct cmek_message msg = { .type = CMEK_MSG_UNLOCKED, .pid = getpid(), .read_only = d->read_only };
	int fd = -1, rc;

	memcpy(msg.volume, d->volume, sizeof(msg.volume));
	memcpy(msg.label, d->label, sizeof(msg.label));
	rc = cmek_message_send(d->supervisor, &msg, -1);
	if (rc == 0)
		rc = cmek_message_receive(d->supervisor, &msg, &fd);
	if (rc == 0 && msg.type == CMEK_MSG_CONTROL) {
		d->control_fd = fd;
		fd = -1;
		rc = cmek_message_receive(d->supervisor, &msg, &fd);
	}
	if (rc == 0 && (msg.type != CMEK_MSG_DEVICE || fd < 0))
		rc = -ECANCELED;
	if (rc == 0) {
		*ret_fd = fd;
		return 0;
	}
	if (fd >= 0)
		(void)close(fd); /* nothing was written to it */
	return cmek_error_sys(err, -rc, "waiting for the mount");
}

int cmek_daemon_main(const struct cmek_mount_opts *opts, int supervisor, int agent, int audit)
{
	struct daemon d = { .opts = opts, .supervisor = supervisor, .agent = agent, .audit = audit, .store_fd = -1, .meta_fd = -1,
			    .control_fd = -1, .since = (int64_t)time(NULL),
			    .agent_lock = PTHREAD_MUTEX_INITIALIZER, .life_lock = PTHREAD_MUTEX_INITIALIZER,
			    .state_lock = PTHREAD_MUTEX_INITIALIZER,
			    .header_lock = PTHREAD_MUTEX_INITIALIZER, .pulse_lock = PTHREAD_MUTEX_INITIALIZER,
			    .notes = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER } };
	struct cmek_error err = CMEK_ERROR_INIT;
	int device_fd = -1, rc, last;

	d.read_only = opts->read_only;
	rc = cmek_confine_daemon(&err);
	if (rc == 0)
		rc = open_store(&d, &err);
	if (rc == 0)
		rc = cmek_daemon_open_keys(&d, d.header, &d.ring, &err);
	if (rc == 0)
		d.header_seen = cmek_volhdr_store_header(d.header)->sequence;
	if (rc == 0)
		rc = open_meta(&d, &err);
	if (rc == 0)
		watch_room(&d);
	/* before the mount, so that what is mounted read-only is so from the start */
	if (rc == 0)
		rc = replay(&d, &err);
	if (rc == 0)
		cmek_daemon_renew(&d, d.store_fd);
	if (rc == 0)
		rc = receive_device(&d, &device_fd, &err);
	if (rc == 0)
		rc = start(&d, &device_fd, &err);
	if (rc == 0)
		rc = serve(&d, &err);
	if (device_fd >= 0)
		(void)close(device_fd); /* nothing was written to it */
	last = finish(&d, &err);
	if (rc == 0)
		rc = last;
	if (rc != 0)
		(void)cmek_message_tell(d.supervisor, CMEK_MSG_FAILED, &err); /* nobody else to tell */
	(void)close(d.agent);
	(void)close(d.audit);
	(void)close(d.supervisor);
	return rc;
}
