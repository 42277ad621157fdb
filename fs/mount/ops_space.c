/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Requests about the space of regular files: fallocate, and lseek for data and holes. It must not know blocks or how
 * space is laid out.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>

#include "fs/mount/ops.h"

void cmek_op_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct cmek_reply_site site = { "fallocate", node, (uint64_t)off };
	struct cmek_ops *ops = cmek_ops_of(req);
	struct cmek_ofile *file = cmek_ofile_find(ops->content, node);
	struct timespec now;
	int rc = -EIO; /* an open file has a state */

	(void)fi;
	/* The kernel does not say whether the caller has CAP_FSETID. */
	if (file)
		rc = cmek_ops_kill_privs(req, node, file, fuse_req_ctx(req)->uid != 0);
	if (rc == 0)
		rc = off < 0 || len <= 0 ? -EINVAL : cmek_content_fallocate(file, mode, (uint64_t)off, (uint64_t)len);
	if (rc == 0 && !ops->kernel_sets_mtime) {
		(void)clock_gettime(CLOCK_REALTIME_COARSE, &now); /* can't fail */
		cmek_ofile_set_mtime(file, now);
	}
	cmek_reply_status(req, rc, &site);
	cmek_ofile_close(file);
}

/* What one lseek asks. */
struct seek {
	struct seek *next;
	fuse_req_t req;
	uint64_t node, off;
	int whence;
};

static void answer_seek(const struct cmek_ops *ops, const struct seek *seek)
{
	struct cmek_reply_site site = { "lseek", seek->node, seek->off };
	struct cmek_ofile *file = cmek_ofile_find(ops->content, seek->node);
	uint64_t off;
	int rc = file ? cmek_content_seek(file, seek->whence, seek->off, &off) : -EIO;

	if (rc == 0)
		cmek_reply_offset(seek->req, off);
	else
		cmek_reply_status(seek->req, rc, &site);
	cmek_ofile_close(file);
}

/*
 * The kernel asks where data is without having written what it holds: pages of its writeback cache, and without that the
 * ones that were changed through a mapping. So it is told to drop the file's pages, which writes the dirty ones. It says so
 * only when the other threads have answered those writes, and they must not all be waiting for it: hence a thread that
 * serves nothing else.
 */
struct cmek_seeks {
	struct cmek_ops *ops;
	pthread_t thread;
	pthread_mutex_t lock; /* the rest */
	pthread_cond_t cond;
	struct seek *head, **tail;
	bool busy, closed, ended;
};

static void *seeks_main(void *arg)
{
	struct cmek_seeks *seeks = arg;
	struct seek *seek;

	(void)pthread_mutex_lock(&seeks->lock);
	while (!seeks->ended || seeks->head) {
		seek = seeks->head;
		if (!seek) {
			(void)pthread_cond_wait(&seeks->cond, &seeks->lock);
			continue;
		}
		seeks->head = seek->next;
		if (!seeks->head)
			seeks->tail = &seeks->head;
		seeks->busy = true;
		(void)pthread_mutex_unlock(&seeks->lock);
		/* An error means that the kernel has nothing of the file, or that nobody waits any more. */
		(void)fuse_lowlevel_notify_inval_inode(seeks->ops->session, seek->node, (off_t)seek->off, 0);
		answer_seek(seeks->ops, seek);
		free(seek);
		(void)pthread_mutex_lock(&seeks->lock);
		seeks->busy = false;
		(void)pthread_cond_broadcast(&seeks->cond);
	}
	(void)pthread_mutex_unlock(&seeks->lock);
	return NULL;
}

static int enqueue(struct cmek_seeks *seeks, const struct seek *seek)
{
	struct seek *own = malloc(sizeof(*own));
	bool closed;

	if (!own)
		return -ENOMEM;
	*own = *seek;
	(void)pthread_mutex_lock(&seeks->lock);
	closed = seeks->closed;
	if (!closed) {
		*seeks->tail = own;
		seeks->tail = &own->next;
		(void)pthread_cond_broadcast(&seeks->cond);
	}
	(void)pthread_mutex_unlock(&seeks->lock);
	if (closed)
		free(own);
	return closed ? -EIO : 0;
}

void cmek_op_lseek(fuse_req_t req, fuse_ino_t node, off_t off, int whence, struct fuse_file_info *fi)
{
	struct cmek_reply_site site = cmek_site("lseek", node);
	struct seek seek = { NULL, req, node, (uint64_t)off, whence };
	struct cmek_ops *ops = cmek_ops_of(req);
	int rc = off < 0 ? -ENXIO : 0;

	(void)fi;
	if (rc == 0 && ops->seeks) {
		rc = enqueue(ops->seeks, &seek);
		if (rc == 0)
			return;
	}
	if (rc == 0)
		answer_seek(ops, &seek);
	else
		cmek_reply_status(req, rc, &site);
}

int cmek_ops_seeks_start(struct cmek_ops *ops)
{
	struct cmek_seeks *seeks = calloc(1, sizeof(*seeks));
	int rc;

	if (!seeks)
		return -ENOMEM;
	seeks->ops = ops;
	seeks->tail = &seeks->head;
	(void)pthread_mutex_init(&seeks->lock, NULL);
	(void)pthread_cond_init(&seeks->cond, NULL);
	rc = -pthread_create(&seeks->thread, NULL, seeks_main, seeks);
	if (rc != 0) {
		(void)pthread_cond_destroy(&seeks->cond);
		(void)pthread_mutex_destroy(&seeks->lock);
		free(seeks);
		return rc;
	}
	ops->seeks = seeks;
	return 0;
}

void cmek_ops_seeks_wait(struct cmek_ops *ops)
{
	struct cmek_seeks *seeks = ops->seeks;

	if (!seeks)
		return;
	(void)pthread_mutex_lock(&seeks->lock);
	while (seeks->busy || seeks->head)
		(void)pthread_cond_wait(&seeks->cond, &seeks->lock);
	(void)pthread_mutex_unlock(&seeks->lock);
}

void cmek_ops_seeks_close(struct cmek_ops *ops)
{
	struct cmek_seeks *seeks = ops->seeks;

	if (!seeks)
		return;
	(void)pthread_mutex_lock(&seeks->lock);
	seeks->closed = true;
	while (seeks->busy || seeks->head)
		(void)pthread_cond_wait(&seeks->cond, &seeks->lock);
	(void)pthread_mutex_unlock(&seeks->lock);
}

void cmek_ops_seeks_end(struct cmek_ops *ops)
{
	struct cmek_seeks *seeks = ops->seeks;

	if (!seeks)
		return;
	(void)pthread_mutex_lock(&seeks->lock);
	seeks->closed = seeks->ended = true;
	(void)pthread_cond_broadcast(&seeks->cond);
	(void)pthread_mutex_unlock(&seeks->lock);
	(void)pthread_join(seeks->thread, NULL);
	(void)pthread_cond_destroy(&seeks->cond);
	(void)pthread_mutex_destroy(&seeks->lock);
	free(seeks);
	ops->seeks = NULL;
}
