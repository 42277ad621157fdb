/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Extended attributes of nodes: user.* and trusted.* are sealed, security.* and POSIX ACLs are the store's own. Who may
 * have which the kernel has checked.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "base/crypto.h"
#include "fs/tree/tree_impl.h"
#include "fs/tree/xattr_crypt.h"

#define VALUE_MAX 65536 /* XATTR_SIZE_MAX of Linux */
#define LIST_MAX 65536  /* XATTR_LIST_MAX */
#define ACL_ACCESS "system.posix_acl_access"
#define ACL_DEFAULT "system.posix_acl_default"

static bool has_prefix(const char *name, const char *prefix)
{
	return strncmp(name, prefix, strlen(prefix)) == 0;
}

enum kind { SEALED, PASSED, NAMELESS, OTHER };

static enum kind kind_of(const char *name)
{
	if (strcmp(name, "user.") == 0 || strcmp(name, "trusted.") == 0)
		return NAMELESS;
	if (has_prefix(name, "user.") || has_prefix(name, "trusted."))
		return SEALED;
	if (has_prefix(name, "security.") || strcmp(name, ACL_ACCESS) == 0 || strcmp(name, ACL_DEFAULT) == 0)
		return PASSED;
	return OTHER;
}

/* An attribute has another name under each data key: who looks at it, or changes it, wants no move in between. */
static pthread_mutex_t *lock_of(struct cmek_tree *tree, const struct cmek_tree_fd *fd)
{
	return &tree->xattr_locks[cmek_tree_dir_stripe(&fd->node.key, CMEK_TREE_XATTR_LOCKS)];
}

static int name_of(struct cmek_tree *tree, uint16_t dek, const char *name, char ret_stored[CMEK_XATTR_STORED_NAME_LEN + 1])
{
	struct cmek_secret *key = NULL;
	int r = cmek_keyring_xattr_name_key(tree->ring, dek, &key);

	if (r == 0)
		r = cmek_xattr_name(key, dek, name, ret_stored);
	cmek_secret_free(key);
	return r;
}

/* All names that the store has for the inode: malloced, each with its NUL. */
static int list_stored(int fd, char **ret_list, size_t *ret_len)
{
	char *list = malloc(LIST_MAX);
	ssize_t n;

	if (!list)
		return -ENOMEM;
	n = cmek_store_listxattr(fd, list, LIST_MAX);
	if (n < 0) {
		free(list);
		return (int)n;
	}
	*ret_list = list;
	*ret_len = (size_t)n;
	return 0;
}

/*
 * Under DEKs that were active once, names are other ones. Calls fn for each such stored name of this attribute; fn returns
 * 1 to go on. 0: none (left), else what fn said.
 */
typedef int (*old_fn)(struct cmek_tree *tree, int fd, const char *stored, void *arg);

static int for_each_old(struct cmek_tree *tree, int fd, const char *name, old_fn fn, void *arg)
{
	char stored[CMEK_XATTR_STORED_NAME_LEN + 1], *list = NULL, *at;
	uint16_t dek;
	size_t len = 0;
	int r = list_stored(fd, &list, &len);

	if (r)
		return r == -EOPNOTSUPP ? 0 : r;
	r = 1;
	for (at = list; r == 1 && at < list + len; at += strlen(at) + 1) {
		if (!cmek_xattr_name_parse(at, &dek) || dek == cmek_keyring_active_dek(tree->ring))
			continue;
		/* A DEK that is gone takes its attributes along. */
		if (name_of(tree, dek, name, stored) == 0 && strcmp(stored, at) == 0)
			r = fn(tree, fd, at, arg);
	}
	free(list);
	return r == 1 ? 0 : r;
}

/* A stored value, malloced. -ENODATA. */
static int read_stored(int fd, const char *stored, uint8_t **ret_data, size_t *ret_len)
{
	uint8_t *data = malloc(VALUE_MAX);
	ssize_t n;

	if (!data)
		return -ENOMEM;
	n = cmek_store_getxattr(fd, stored, data, VALUE_MAX);
	if (n < 0) {
		free(data);
		return (int)n;
	}
	*ret_data = data;
	*ret_len = (size_t)n;
	return 0;
}

/* Opens data in place. */
static int open_stored(struct cmek_tree *tree, const char *stored, uint8_t *data, size_t len,
		       char ret_name[CMEK_XATTR_NAME_MAX + 1], const uint8_t **ret_value, size_t *ret_len)
{
	struct cmek_secret *name_key = NULL, *key = NULL;
	uint16_t dek;
	int r;

	if (len < CMEK_XATTR_HEAD_LEN || !cmek_xattr_name_parse(stored, &dek))
		return -EBADMSG;
	r = cmek_keyring_xattr_name_key(tree->ring, dek, &name_key);
	if (r == 0)
		r = cmek_keyring_xattr_key(tree->ring, dek, data, &key);
	if (r == 0)
		r = cmek_xattr_open(key, name_key, stored, data, len, ret_name, ret_value, ret_len);
	cmek_secret_free(key);
	cmek_secret_free(name_key);
	return r;
}

/* A value being read: data is malloced, the name that counts is the one it was found under. */
struct found {
	char stored[CMEK_XATTR_STORED_NAME_LEN + 1];
	uint8_t *data;
	size_t len;
};

static int found_old(struct cmek_tree *tree, int fd, const char *stored, void *arg)
{
	struct found *found = arg;
	int r = read_stored(fd, stored, &found->data, &found->len);

	(void)tree;
	memcpy(found->stored, stored, sizeof found->stored);
	return r == -ENODATA ? 1 : r;
}

static int get_sealed(struct cmek_tree *tree, int fd, const char *name, void *value, size_t size)
{
	char plain_name[CMEK_XATTR_NAME_MAX + 1];
	struct found found = { .data = NULL };
	const uint8_t *plain;
	size_t len;
	int r;

	r = name_of(tree, cmek_keyring_active_dek(tree->ring), name, found.stored);
	if (r == 0)
		r = read_stored(fd, found.stored, &found.data, &found.len);
	if (r == -ENODATA) {
		r = for_each_old(tree, fd, name, found_old, &found);
		if (r == 0 && !found.data)
			r = -ENODATA;
	}
	if (r)
		return r;
	r = open_stored(tree, found.stored, found.data, found.len, plain_name, &plain, &len);
	if (r == 0 && size > 0 && size < len)
		r = -ERANGE;
	if (r == 0 && size > 0 && len > 0)
		memcpy(value, plain, len);
	cmek_wipe(found.data, found.len);
	free(found.data);
	return r ? r : (int)len;
}

int cmek_tree_getxattr(struct cmek_tree *tree, uint64_t node, const char *name, void *value, size_t size)
{
	enum kind kind = kind_of(name);
	struct cmek_tree_fd fd;
	ssize_t n;
	int r;

	if (kind == OTHER || kind == NAMELESS)
		return kind == OTHER ? -EOPNOTSUPP : -EINVAL;
	r = cmek_tree_fd_get(tree, node, &fd);
	if (r)
		return r;
	if (kind == SEALED) {
		pthread_mutex_lock(lock_of(tree, &fd));
		r = get_sealed(tree, fd.fd, name, value, size);
		pthread_mutex_unlock(lock_of(tree, &fd));
	} else {
		n = cmek_store_getxattr(fd.fd, name, value, size);
		r = (int)n;
		/* A store without ACLs: the kernel takes any other answer for a failed check of permissions. */
		if (r == -EOPNOTSUPP && has_prefix(name, "system."))
			r = -ENODATA;
	}
	cmek_tree_fd_put(tree, &fd);
	return r;
}

static int say_exists(struct cmek_tree *tree, int fd, const char *stored, void *arg)
{
	(void)tree;
	(void)fd;
	(void)stored;
	(void)arg;
	return -EEXIST;
}

static int remove_old(struct cmek_tree *tree, int fd, const char *stored, void *arg)
{
	bool *removed = arg;
	int r = cmek_store_removexattr(fd, stored);

	(void)tree;
	if (r == 0)
		*removed = true;
	return r == 0 || r == -ENODATA ? 1 : r;
}

static int set_sealed(struct cmek_tree *tree, int fd, const char *name, const void *value, size_t size, int flags)
{
	size_t stored_len = CMEK_XATTR_OVERHEAD(strlen(name)) + size;
	char stored[CMEK_XATTR_STORED_NAME_LEN + 1];
	struct cmek_secret *key = NULL;
	struct cmek_seal_right right;
	bool removed = false;
	uint8_t *data;
	int old, r;

	if (strlen(name) > CMEK_XATTR_NAME_MAX || stored_len > VALUE_MAX)
		return -E2BIG;
	old = for_each_old(tree, fd, name, say_exists, NULL);
	if (old < 0 && (old != -EEXIST || (flags & XATTR_CREATE)))
		return old;
	data = malloc(stored_len);
	r = data ? cmek_keyring_seal_right(tree->ring, 1, &right) : -ENOMEM;
	if (r == 0)
		r = cmek_keyring_xattr_key(tree->ring, right.dek, right.salt, &key);
	if (r == 0)
		r = name_of(tree, right.dek, name, stored);
	if (r == 0)
		r = cmek_xattr_seal(key, &right, stored, name, value, size, data);
	if (r == 0)
		cmek_keyring_count_sealed(tree->ring, right.dek, stored_len);
	if (r == 0)
		r = cmek_store_setxattr(fd, stored, data, stored_len, old ? 0 : flags);
	if (r == 0 && old)
		r = for_each_old(tree, fd, name, remove_old, &removed);
	cmek_secret_free(key);
	free(data); /* sealed, or nothing */
	return r;
}

static int remove_sealed(struct cmek_tree *tree, int fd, const char *name)
{
	char stored[CMEK_XATTR_STORED_NAME_LEN + 1];
	bool removed = false;
	int r;

	/* The old ones first: the newest is the one that counts, for as long as it is there. */
	r = for_each_old(tree, fd, name, remove_old, &removed);
	if (r == 0)
		r = name_of(tree, cmek_keyring_active_dek(tree->ring), name, stored);
	if (r == 0)
		r = cmek_store_removexattr(fd, stored);
	return r == -ENODATA && removed ? 0 : r;
}

/* For a change of an attribute: the open node, its lock is held until change_end(). */
static int change_begin(struct cmek_tree *tree, uint64_t node, const char *name, struct cmek_tree_fd *ret_fd)
{
	enum kind kind = kind_of(name);
	int r;

	if (kind == OTHER || kind == NAMELESS)
		return kind == OTHER ? -EOPNOTSUPP : -EINVAL;
	r = atomic_load(&tree->read_only) ? -EROFS : cmek_tree_fd_get(tree, node, ret_fd);
	if (r == 0)
		pthread_mutex_lock(lock_of(tree, ret_fd));
	return r;
}

static void change_end(struct cmek_tree *tree, struct cmek_tree_fd *fd, const char *name)
{
	pthread_mutex_unlock(lock_of(tree, fd));
	/* A default ACL decides what becomes of the umask of those who make entries here: see cmek_tree_mode_for(). */
	if (strcmp(name, ACL_DEFAULT) == 0 && fd->ref && S_ISDIR(fd->node.type))
		cmek_fd_ref_set_acl(tree->dirs, fd->ref, CMEK_ACL_UNKNOWN);
	cmek_tree_fd_put(tree, fd);
}

int cmek_tree_setxattr(struct cmek_tree *tree, uint64_t node, const char *name, const void *value, size_t size, int flags)
{
	struct cmek_tree_fd fd;
	int r;

	r = change_begin(tree, node, name, &fd);
	if (r)
		return r;
	r = kind_of(name) == SEALED ? set_sealed(tree, fd.fd, name, value, size, flags) :
				      cmek_store_setxattr(fd.fd, name, value, size, flags);
	change_end(tree, &fd, name);
	return r;
}

int cmek_tree_removexattr(struct cmek_tree *tree, uint64_t node, const char *name)
{
	struct cmek_tree_fd fd;
	int r;

	r = change_begin(tree, node, name, &fd);
	if (r)
		return r;
	r = kind_of(name) == SEALED ? remove_sealed(tree, fd.fd, name) : cmek_store_removexattr(fd.fd, name);
	change_end(tree, &fd, name);
	return r;
}

/* A list of plain names under way. */
struct listing {
	char *names;
	size_t len, size; /* size 0: only counted */
};

static bool listed(const struct listing *l, const char *name)
{
	const char *at;

	for (at = l->names; l->size > 0 && at < l->names + l->len; at += strlen(at) + 1)
		if (strcmp(at, name) == 0)
			return true;
	return false;
}

static int add_name(struct listing *l, const char *name)
{
	size_t len = strlen(name) + 1;

	if (l->size > 0 && listed(l, name)) /* under two DEKs: its move was interrupted */
		return 0;
	if (l->size > 0 && len > l->size - l->len)
		return -ERANGE;
	if (l->size > 0)
		memcpy(l->names + l->len, name, len);
	l->len += len;
	return 0;
}

static int list_one(struct cmek_tree *tree, int fd, const char *stored, bool trusted, struct listing *l)
{
	char name[CMEK_XATTR_NAME_MAX + 1];
	const uint8_t *value;
	uint8_t *data = NULL;
	size_t len = 0, value_len;
	uint16_t dek;
	int r;

	if (!cmek_xattr_name_parse(stored, &dek))
		return kind_of(stored) == PASSED ? add_name(l, stored) : 0;
	r = read_stored(fd, stored, &data, &len);
	if (r)
		return r == -ENODATA ? 0 : r;
	r = open_stored(tree, stored, data, len, name, &value, &value_len);
	cmek_wipe(data, len);
	free(data);
	if (r)
		return r;
	return trusted || !has_prefix(name, "trusted.") ? add_name(l, name) : 0;
}

int cmek_tree_listxattr(struct cmek_tree *tree, uint64_t node, bool trusted, char *list, size_t size)
{
	struct listing l = { .names = list, .size = size };
	struct cmek_tree_fd fd;
	char *stored = NULL, *at;
	size_t len = 0;
	int r;

	r = cmek_tree_fd_get(tree, node, &fd);
	if (r)
		return r;
	pthread_mutex_lock(lock_of(tree, &fd));
	r = list_stored(fd.fd, &stored, &len);
	for (at = stored; r == 0 && at < stored + len; at += strlen(at) + 1)
		r = list_one(tree, fd.fd, at, trusted, &l);
	pthread_mutex_unlock(lock_of(tree, &fd));
	free(stored);
	cmek_tree_fd_put(tree, &fd);
	return r ? r : (int)l.len;
}

/* One stored name under another data key: under the active one first, unless there is a newer value, then it goes. */
static int move_one(struct cmek_tree *tree, int fd, const char *stored)
{
	char name[CMEK_XATTR_NAME_MAX + 1], active[CMEK_XATTR_STORED_NAME_LEN + 1];
	uint8_t *data = NULL, *sealed = NULL;
	struct cmek_secret *key = NULL;
	struct cmek_seal_right right;
	const uint8_t *value;
	size_t len = 0, value_len = 0;
	int r = read_stored(fd, stored, &data, &len);

	if (r)
		return r;
	r = open_stored(tree, stored, data, len, name, &value, &value_len);
	if (r == 0)
		r = cmek_keyring_seal_right(tree->ring, 1, &right);
	if (r == 0)
		r = cmek_keyring_xattr_key(tree->ring, right.dek, right.salt, &key);
	if (r == 0)
		r = name_of(tree, right.dek, name, active);
	if (r == 0) {
		sealed = malloc(len); /* as long as it was */
		r = sealed ? cmek_xattr_seal(key, &right, active, name, value, value_len, sealed) : -ENOMEM;
	}
	if (r == 0)
		cmek_keyring_count_sealed(tree->ring, right.dek, len);
	if (r == 0)
		r = cmek_store_setxattr(fd, active, sealed, len, XATTR_CREATE);
	if (r == 0 || r == -EEXIST)
		r = cmek_store_removexattr(fd, stored);
	cmek_secret_free(key);
	cmek_wipe(data, len);
	free(data);
	free(sealed);
	return r;
}

int cmek_tree_reencrypt_xattrs(struct cmek_tree *tree, uint64_t node, struct cmek_tree_reencrypt *sum)
{
	uint16_t dek, active = cmek_keyring_active_dek(tree->ring);
	char *stored = NULL, *at;
	struct cmek_tree_fd fd;
	size_t len = 0;
	int r, one;

	if (active == 0)
		return -EKEYREVOKED;
	r = cmek_tree_fd_get(tree, node, &fd);
	if (r)
		return r;
	pthread_mutex_lock(lock_of(tree, &fd));
	r = list_stored(fd.fd, &stored, &len);
	for (at = stored; r == 0 && at < stored + len; at += strlen(at) + 1) {
		if (!cmek_xattr_name_parse(at, &dek))
			continue;
		sum->attributes++;
		if (dek == active)
			continue;
		one = move_one(tree, fd.fd, at);
		sum->moved += one == 0;
		/* Both have to fit for a moment: without room for that (ENOSPC, EDQUOT, E2BIG), or whatever it is, it stays. */
		if (one == -EBADMSG || one == -ENOKEY)
			sum->bad++;
		else if (one < 0)
			sum->left++;
		if (one == -ENOMEM || one == -EKEYREVOKED || one == -EROFS || one == -EIO)
			r = one;
	}
	pthread_mutex_unlock(lock_of(tree, &fd));
	free(stored);
	cmek_tree_fd_put(tree, &fd);
	return r == -EOPNOTSUPP ? 0 : r;
}

mode_t cmek_tree_mode_for(struct cmek_tree *tree, const struct cmek_tree_dir *dir, mode_t mode, mode_t mask)
{
	enum cmek_acl_state state = dir->fd.ref ? cmek_fd_ref_acl(tree->dirs, dir->fd.ref) : CMEK_ACL_UNKNOWN;

	if (mask == 0)
		return mode;
	if (state == CMEK_ACL_UNKNOWN) {
		state = cmek_store_getxattr(dir->fd.fd, ACL_DEFAULT, NULL, 0) > 0 ? CMEK_ACL_DEFAULT : CMEK_ACL_NONE;
		if (dir->fd.ref)
			cmek_fd_ref_set_acl(tree->dirs, dir->fd.ref, state);
	}
	return state == CMEK_ACL_DEFAULT ? mode : mode & ~mask;
}
