/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What needs that the kernel drops something first: pages of a file, of which it writes the dirty ones back, or its
 * attributes. The kernel says that it has only when the other threads have answered those writes, and they must not all be
 * waiting for it: hence a thread that serves nothing else. It must not know what the requests ask.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "fs/mount/ops.h"

/* The kernel makes the inode of a new file as soon as it has the answer. */
#define NEW_TRIES 20
#define NEW_PAUSE_NS 100000

struct cmek_laters {
	struct cmek_ops *ops;
	pthread_t thread;
	pthread_mutex_t lock; /* the rest */
	pthread_cond_t cond;
	struct cmek_later *head, **tail;
	bool busy, closed, ended;
};

/* An error means that the kernel has nothing of the file, or that nobody waits any more; or that it has yet to make the inode. */
static void drop(const struct cmek_ops *ops, const struct cmek_later *later)
{
	const struct timespec pause = { .tv_nsec = NEW_PAUSE_NS };
	unsigned n = 0;

	while (fuse_lowlevel_notify_inval_inode(ops->session, later->node, later->drop_from, 0) == -ENOENT && later->is_new &&
	       n++ < NEW_TRIES)
		(void)nanosleep(&pause, NULL);
}

static void *laters_main(void *arg)
{
	struct cmek_laters *laters = arg;
	struct cmek_later *later;

	(void)pthread_mutex_lock(&laters->lock);
	while (!laters->ended || laters->head) {
		later = laters->head;
		if (!later) {
			(void)pthread_cond_wait(&laters->cond, &laters->lock);
			continue;
		}
		laters->head = later->next;
		if (!laters->head)
			laters->tail = &laters->head;
		laters->busy = true;
		(void)pthread_mutex_unlock(&laters->lock);
		drop(laters->ops, later);
		if (later->answer)
			later->answer(laters->ops, later);
		free(later);
		(void)pthread_mutex_lock(&laters->lock);
		laters->busy = false;
		(void)pthread_cond_broadcast(&laters->cond);
	}
	(void)pthread_mutex_unlock(&laters->lock);
	return NULL;
}

static int enqueue(struct cmek_laters *laters, const struct cmek_later *later)
{
	struct cmek_later *own = malloc(sizeof(*own));
	bool closed;

	if (!own)
		return -ENOMEM;
	*own = *later;
	own->next = NULL;
	(void)pthread_mutex_lock(&laters->lock);
	closed = laters->closed;
	if (!closed) {
		*laters->tail = own;
		laters->tail = &own->next;
		(void)pthread_cond_broadcast(&laters->cond);
	}
	(void)pthread_mutex_unlock(&laters->lock);
	if (closed)
		free(own);
	return closed ? -EIO : 0;
}

void cmek_ops_later(struct cmek_ops *ops, const struct cmek_later *later)
{
	struct cmek_reply_site site = cmek_site(later->what, later->node);
	int rc = ops->laters ? enqueue(ops->laters, later) : 0;

	if (!later->answer)
		return;
	if (!ops->laters)
		later->answer(ops, later);
	else if (rc != 0)
		cmek_reply_status(later->req, rc, &site);
}

int cmek_ops_laters_start(struct cmek_ops *ops)
{
	struct cmek_laters *laters = calloc(1, sizeof(*laters));
	int rc;

	if (!laters)
		return -ENOMEM;
	laters->ops = ops;
	laters->tail = &laters->head;
	(void)pthread_mutex_init(&laters->lock, NULL);
	(void)pthread_cond_init(&laters->cond, NULL);
	rc = -pthread_create(&laters->thread, NULL, laters_main, laters);
	if (rc != 0) {
		(void)pthread_cond_destroy(&laters->cond);
		(void)pthread_mutex_destroy(&laters->lock);
		free(laters);
		return rc;
	}
	ops->laters = laters;
	return 0;
}

void cmek_ops_laters_wait(struct cmek_ops *ops)
{
	struct cmek_laters *laters = ops->laters;

	if (!laters)
		return;
	(void)pthread_mutex_lock(&laters->lock);
	while (laters->busy || laters->head)
		(void)pthread_cond_wait(&laters->cond, &laters->lock);
	(void)pthread_mutex_unlock(&laters->lock);
}

void cmek_ops_laters_close(struct cmek_ops *ops)
{
	struct cmek_laters *laters = ops->laters;

	if (!laters)
		return;
	(void)pthread_mutex_lock(&laters->lock);
	laters->closed = true;
	(void)pthread_mutex_unlock(&laters->lock);
	cmek_ops_laters_wait(ops);
}

void cmek_ops_laters_end(struct cmek_ops *ops)
{
	struct cmek_laters *laters = ops->laters;

	if (!laters)
		return;
	(void)pthread_mutex_lock(&laters->lock);
	laters->closed = laters->ended = true;
	(void)pthread_cond_broadcast(&laters->cond);
	(void)pthread_mutex_unlock(&laters->lock);
	(void)pthread_join(laters->thread, NULL);
	(void)pthread_cond_destroy(&laters->cond);
	(void)pthread_mutex_destroy(&laters->lock);
	free(laters);
	ops->laters = NULL;
}
