/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * New entries: files, directories, special files, symlinks, hard links. In each case: the directory's id, then the
 * link of a long name, then the entry, in this order, so that a crash leaves nothing unreadable.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/tree/tree_impl.h"

/* A creation under way. */
struct making {
	struct cmek_tree_place place;
	struct cmek_tree_locks locks;
	struct cmek_store_stat st; /* of what is there already */
	bool exists;
};

static void making_end(struct cmek_tree *tree, struct making *m, int r)
{
	struct cmek_store_stat st;

	if (r && m->place.made_link && cmek_tree_place_find(tree, &m->place, &st) == -ENOENT)
		cmek_tree_place_drop_link(tree, &m->place);
	if (r == 0)
		cmek_tree_dir_changed(tree, &m->place.dir);
	cmek_tree_unlock(tree, &m->locks);
	cmek_tree_place_put(tree, &m->place);
}

/* Up to the point where only the entry itself is missing. On success making_end() follows. */
static int making_begin(struct cmek_tree *tree, uint64_t parent, const char *name, struct making *m)
{
	int r;

	memset(&m->locks, 0, sizeof m->locks);
	m->exists = false;
	if (atomic_load(&tree->read_only))
		return -EROFS;
	r = cmek_tree_place_get(tree, parent, name, &m->place);
	if (r)
		return r;
	cmek_tree_locks_add_dir(&m->locks, &m->place.dir.fd.node.key, false);
	cmek_tree_lock_dirs(tree, &m->locks);
	r = cmek_tree_place_new_name(tree, &m->place, name);
	if (r)
		goto out;
	cmek_tree_place_lock(&m->locks, &m->place);
	cmek_tree_lock_names(tree, &m->locks);
	/* While the directory's names move to another DEK, the entry may exist under the old one. */
	if (m->place.n_names > 1) {
		r = cmek_tree_place_find(tree, &m->place, &m->st);
		m->exists = r == 0;
		r = r == -ENOENT ? 0 : r;
	}
	if (r == 0 && !m->exists)
		r = cmek_tree_place_make_link(tree, &m->place);
out:
	if (r)
		making_end(tree, m, r);
	return r;
}

/* Who makes a directory entry that then can't be told about takes it back. */
static void take_back(const struct making *m, bool is_dir)
{
	if (is_dir)
		(void)cmek_store_rmdir(m->place.dir.fd.fd, m->place.name->entry);
	else
		(void)cmek_store_unlink(m->place.dir.fd.fd, m->place.name->entry);
}

/* The answer for a new entry without a descriptor. */
static int enter_new(struct cmek_tree *tree, struct making *m, struct cmek_entry *ret_entry)
{
	int r = cmek_tree_place_find(tree, &m->place, &m->st);

	return r ? r : cmek_tree_enter(tree, &m->place, -1, &m->st, ret_entry);
}

/* An existing entry in answer to a create, who came first included. */
static int enter_existing(struct cmek_tree *tree, struct making *m, struct cmek_entry *ret_entry)
{
	int r = m->exists ? 0 : cmek_tree_place_find(tree, &m->place, &m->st);

	return r ? r : cmek_tree_enter(tree, &m->place, -1, &m->st, ret_entry);
}

static int create_fd(struct cmek_tree *tree, struct making *m, mode_t mode, const struct cmek_cred *cred)
{
	bool entered;
	int fd, tries;

	/* Before it is made: that is hard to take back. */
	fd = cmek_tree_fd_room(tree);
	if (fd)
		return fd;
	mode = cmek_tree_mode_for(tree, &m->place.dir, mode & 07777, cred->umask);
	for (tries = 0;; tries++) {
		fd = cmek_cred_enter(&tree->self, cred, &entered);
		if (fd)
			return fd;
		fd = cmek_store_create(m->place.dir.fd.fd, m->place.name->entry, mode);
		cmek_cred_leave(&tree->self, entered);
		if (tries || !cmek_tree_ran_out(tree, fd))
			return fd == -EMFILE ? -ENFILE : fd;
	}
}

int cmek_tree_create(struct cmek_tree *tree, uint64_t parent, const char *name, mode_t mode, bool excl,
		     const struct cmek_cred *cred, struct cmek_entry *ret_entry, int *ret_fd)
{
	struct making m;
	int r, fd = -1;

	r = making_begin(tree, parent, name, &m);
	if (r)
		return r;
	if (!m.exists) {
		fd = create_fd(tree, &m, mode, cred);
		r = fd < 0 ? fd : 0;
	}
	if ((m.exists || r == -EEXIST) && !excl) {
		r = enter_existing(tree, &m, ret_entry);
		if (r == 0)
			*ret_fd = -1;
	} else if (m.exists) {
		r = -EEXIST;
	} else if (r == 0) {
		r = cmek_tree_fd_lower(tree, &fd, tree->fds.user_end);
		if (r == 0)
			r = cmek_tree_enter(tree, &m.place, fd, &m.st, ret_entry);
		if (r) {
			take_back(&m, false);
			close(fd);
		} else {
			*ret_fd = fd;
		}
	}
	making_end(tree, &m, r);
	return r;
}

/* A directory, or what has no contents at all: fifo, socket, device. */
static int make_bare(struct cmek_tree *tree, uint64_t parent, const char *name, mode_t mode, dev_t rdev,
		     const struct cmek_cred *cred, struct cmek_entry *ret_entry)
{
	bool dir = S_ISDIR(mode), entered;
	struct making m;
	int r;

	r = making_begin(tree, parent, name, &m);
	if (r)
		return r;
	mode = cmek_tree_mode_for(tree, &m.place.dir, mode, cred->umask);
	r = m.exists ? -EEXIST : cmek_cred_enter(&tree->self, cred, &entered);
	if (r == 0) {
		r = dir ? cmek_store_mkdir(m.place.dir.fd.fd, m.place.name->entry, mode & 07777) :
			  cmek_store_mknod(m.place.dir.fd.fd, m.place.name->entry, mode, rdev);
		cmek_cred_leave(&tree->self, entered);
	}
	if (r == 0) {
		r = enter_new(tree, &m, ret_entry);
		if (r)
			take_back(&m, dir);
	}
	making_end(tree, &m, r);
	return r;
}

int cmek_tree_mkdir(struct cmek_tree *tree, uint64_t parent, const char *name, mode_t mode,
		    const struct cmek_cred *cred, struct cmek_entry *ret_entry)
{
	return make_bare(tree, parent, name, (mode & 07777) | S_IFDIR, 0, cred, ret_entry);
}

int cmek_tree_mknod(struct cmek_tree *tree, uint64_t parent, const char *name, mode_t mode, dev_t rdev,
		    const struct cmek_cred *cred, struct cmek_entry *ret_entry)
{
	return S_ISDIR(mode) ? -EPERM : make_bare(tree, parent, name, mode, rdev, cred, ret_entry);
}

/* -EAGAIN: the target was sealed under a data key that is not the active one any more. */
static int make_symlink(struct cmek_tree *tree, uint64_t parent, const char *name, const char *target,
			const struct cmek_cred *cred, struct cmek_entry *ret_entry)
{
	char *text = NULL;
	struct making m;
	bool entered;
	int r;

	/* First of all: the pieces of a long target are flushed, which is too slow for any lock. */
	r = cmek_tree_make_target(tree, target, &text);
	if (r)
		return r;
	r = making_begin(tree, parent, name, &m);
	if (r)
		goto out;
	/* Who moves the directory to another key waits for its lock first, so what is made from here on is not overlooked. */
	r = m.exists ? -EEXIST : cmek_tree_target_is_old(tree, text) ? -EAGAIN : 0;
	if (r == 0)
		r = cmek_cred_enter(&tree->self, cred, &entered);
	if (r == 0) {
		r = cmek_store_symlink(m.place.dir.fd.fd, m.place.name->entry, text);
		cmek_cred_leave(&tree->self, entered);
	}
	if (r == 0) {
		r = enter_new(tree, &m, ret_entry);
		if (r)
			take_back(&m, false);
	}
	making_end(tree, &m, r);
out:
	if (r)
		cmek_tree_drop_pieces(tree, text);
	free(text);
	return r;
}

int cmek_tree_symlink(struct cmek_tree *tree, uint64_t parent, const char *name, const char *target,
		      const struct cmek_cred *cred, struct cmek_entry *ret_entry)
{
	int r;

	do
		r = make_symlink(tree, parent, name, target, cred, ret_entry);
	while (r == -EAGAIN);
	return r;
}

int cmek_tree_link(struct cmek_tree *tree, uint64_t node, uint64_t new_parent, const char *new_name,
		   struct cmek_entry *ret_entry)
{
	struct cmek_tree_fd fd;
	struct making m;
	int r;

	r = cmek_tree_fd_get(tree, node, &fd);
	if (r)
		return r;
	if (S_ISDIR(fd.node.type)) {
		cmek_tree_fd_put(tree, &fd);
		return -EPERM;
	}
	r = making_begin(tree, new_parent, new_name, &m);
	if (r == 0) {
		if (!m.exists)
			cmek_tree_note_link(tree, &fd.node, &m.place);
		r = m.exists ? -EEXIST : cmek_store_link(fd.fd, m.place.dir.fd.fd, m.place.name->entry);
		if (r == 0) {
			r = enter_new(tree, &m, ret_entry);
			if (r)
				take_back(&m, false);
		}
		making_end(tree, &m, r);
	}
	cmek_tree_fd_put(tree, &fd);
	return r;
}
