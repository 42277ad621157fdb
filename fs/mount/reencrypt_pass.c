/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * One pass of re-encryption over a volume in use: every file by its names, then those whose last name is gone. It must not
 * know when to begin and how fast to go.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "fs/content/block_map.h"
#include "fs/mount/reencrypt.h"
#include "fs/mount/walk.h"

/* So much is moved before others get at the file's commit, the rate is looked at, and a lock or an end waits no longer. */
#define STEP_BYTES (4u << 20)

/* Files with changes of ours that are not in the store yet; so many go there together. */
#define KEPT_MAX 64u

struct pass {
	struct cmek_reencrypt *work;
	const struct cmek_reencrypt_params *params;
	struct cmek_reencrypt_counts *counts;
	bool measure; /* counts only */
	uint64_t kept[KEPT_MAX]; /* nodes of such files */
	unsigned n_kept;
};

/* It has gone while it was being looked for. */
static bool is_gone(int r)
{
	return r == -ESTALE || r == -ENOENT;
}

/*
 * What was just found and can't be found again is gone, as a rule. But it may also be elsewhere, or known by another number by
 * now: so that is no proof, and there is another pass.
 */
static int or_gone(struct pass *p, int r)
{
	if (!is_gone(r))
		return r;
	p->counts->old += p->counts->proving;
	return 0;
}

/* The mount may not write to it, and nobody would want the whole to stop for that. */
static bool is_refused(int r)
{
	return r == -EACCES || r == -EPERM;
}

/* A node of which something stays under its data key, by where the store has it. */
static void hinder(struct pass *p, uint64_t node, const char *why)
{
	size_t len = strlen(p->params->store_path);
	char link[64], path[PATH_MAX], *stored = path;
	struct stat st = { .st_ino = 0 };
	ssize_t n = 0;
	int fd;

	if (!cmek_reencrypt_enter(p->work)) {
		cmek_reencrypt_leave(p->work);
		return;
	}
	if (cmek_tree_getattr_timeless(p->params->tree, node, &st) != 0)
		st.st_ino = 0;
	fd = cmek_tree_open_store(p->params->tree, node, O_RDONLY | (S_ISDIR(st.st_mode) ? O_DIRECTORY : 0));
	cmek_reencrypt_leave(p->work);
	if (fd >= 0) {
		(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		n = readlink(link, path, sizeof(path) - 1);
		(void)close(fd); /* nothing was written to it */
	}
	path[n > 0 ? n : 0] = '\0';
	if (strncmp(path, p->params->store_path, len) == 0 && path[len] == '/')
		stored += len + 1;
	cmek_reencrypt_hinder(p->work, stored, st.st_ino, why);
}

static void report_left(const struct pass *p, uint64_t node, int r)
{
	static struct cmek_log_limit limit;
	char where[CMEK_TREE_WHERE_ROOM];

	cmek_tree_where(p->params->tree, node, where);
	cmek_log_limited(&limit, CMEK_LOG_WARNING, "re-encryption: %s may not be written to (%s): it stays under "
			 "its data key", where, strerror(-r));
}

static void report_names(const struct pass *p, uint64_t node, const struct cmek_tree_reencrypt *sum)
{
	static struct cmek_log_limit limit;
	char where[CMEK_TREE_WHERE_ROOM];

	cmek_tree_where(p->params->tree, node, where);
	cmek_log_limited(&limit, CMEK_LOG_WARNING, "re-encryption: %s: names, symlinks or attributes stay under their "
			 "data key: %" PRIu64 " do not open, %" PRIu64 " could not be stored anew", where, sum->bad, sum->left);
}

/* One step of a file, with the keys in use. 1: it is done. */
static int step_file(struct pass *p, struct cmek_ofile *file, struct cmek_reencrypt_step *step)
{
	int r = -ECANCELED;

	step->moved_bytes = step->moved_pages = step->bad = 0;
	if (cmek_reencrypt_enter(p->work))
		r = cmek_content_reencrypt(file, STEP_BYTES, step);
	cmek_reencrypt_leave(p->work);
	p->counts->bytes_moved += step->moved_bytes;
	p->counts->moved += step->moved_bytes + step->moved_pages;
	p->counts->bad += step->bad;
	return r < 0 ? r : step->done;
}

/* The same of what the store has, when nothing had to be moved any more. */
static int verify_file(struct pass *p, struct cmek_ofile *file)
{
	struct cmek_verify_step step = { .group = 0 };
	int r = 0;

	while (r == 0 && !step.done) {
		step.pages = step.blocks = step.old = step.bad = 0;
		r = cmek_reencrypt_enter(p->work) ? cmek_content_verify(file, &step) : -ECANCELED;
		cmek_reencrypt_leave(p->work);
		p->counts->looked.pages += step.pages;
		p->counts->looked.blocks += step.blocks;
		p->counts->old += step.old;
		p->counts->bad += step.bad;
		if (r == 0)
			cmek_reencrypt_tell(p->work, p->counts, step.pages * CMEK_MAP_BYTES);
	}
	p->counts->looked.files += r == 0;
	return r < 0 ? r : 1;
}

static int open_file(struct pass *p, uint64_t node, struct cmek_ofile **ret_file)
{
	struct cmek_ofile *file = NULL;
	int r = -ECANCELED;

	if (cmek_reencrypt_enter(p->work))
		r = cmek_ofile_open_briefly(p->params->content, node, &file);
	/*
	 * The kernel was told another size, which it does not take back: see check_size() of ops_file.c. Under its new node it
	 * is met by the next pass, and by no two nodes at once.
	 */
	if (r == 0 && cmek_ofile_check_size(file) == CMEK_SIZE_MENDED) {
		cmek_tree_retire(p->params->tree, node);
		cmek_ofile_close(file);
		file = NULL;
		p->counts->old++;
		r = -ESTALE;
	}
	cmek_reencrypt_leave(p->work);
	*ret_file = file;
	return r;
}

/* Brings what waits of the kept files to the store. */
static int settle_kept(struct pass *p)
{
	struct cmek_ofile *file;
	int r = 0, one;
	unsigned i;

	if (p->n_kept == 0)
		return 0;
	/* Also at the end, when the keys may still be used: nobody has locked the volume while we are in. */
	if (!cmek_reencrypt_enter(p->work))
		r = -ECANCELED;
	(void)cmek_content_commit_all(p->params->content); /* with few flushes; each file says how it went */
	for (i = 0; i < p->n_kept; i++) {
		file = cmek_ofile_find(p->params->content, p->kept[i]);
		one = file ? cmek_content_commit(file) : 0;
		cmek_ofile_close(file);
		if (r == 0)
			r = one;
	}
	cmek_reencrypt_leave(p->work);
	p->n_kept = 0;
	return r;
}

/* Closes a file. */
static int close_file(struct pass *p, uint64_t node, struct cmek_ofile *file)
{
	(void)cmek_reencrypt_enter(p->work);
	if (file && cmek_ofile_is_dirty(file))
		p->kept[p->n_kept++] = node;
	cmek_ofile_close(file);
	cmek_reencrypt_leave(p->work);
	return p->n_kept == KEPT_MAX ? settle_kept(p) : 0;
}

/* size: plain bytes, as the look-up told. */
static int move_file(struct pass *p, uint64_t node, uint64_t size)
{
	struct cmek_reencrypt_step step = { .group = 0 };
	uint64_t before = p->counts->bytes_done, bad = p->counts->bad, moved;
	struct cmek_ofile *file = NULL;
	int r, closed;

	r = open_file(p, node, &file);
	while (r == 0) {
		moved = p->counts->bytes_moved;
		r = step_file(p, file, &step);
		/* Not known how far it is where groups are absent; it comes right with the end of the file. */
		p->counts->bytes_done += p->counts->bytes_moved - moved;
		if (p->counts->bytes_done > before + size)
			p->counts->bytes_done = before + size;
		cmek_reencrypt_tell(p->work, p->counts, p->counts->bytes_moved - moved);
	}
	if (r == 1 && p->counts->proving)
		r = verify_file(p, file);
	closed = close_file(p, node, file);
	r = closed < 0 && (r >= 0 || is_gone(r)) ? closed : r;
	if (r == -ECANCELED)
		return r;
	p->counts->bytes_done = before + size;
	p->counts->files_done++;
	if (is_refused(r)) {
		report_left(p, node, r);
		hinder(p, node, "may not be written to");
		p->counts->left++;
	} else if (p->counts->bad > bad) {
		hinder(p, node, "has contents that do not open");
	}
	return r > 0 || is_refused(r) ? 0 : or_gone(p, r);
}

static void add_looked(struct pass *p, mode_t mode, const struct cmek_tree_reencrypt *sum)
{
	p->counts->looked.directories += S_ISDIR(mode);
	p->counts->looked.targets += sum->targets;
	p->counts->looked.attributes += sum->attributes;
	p->counts->old += sum->old;
}

/* Names in a directory, targets of the symlinks there, attributes of anything that can have them. */
static int move_tree_parts(struct pass *p, uint64_t node, mode_t mode)
{
	struct cmek_tree_reencrypt sum = { 0 };
	int r = 0;

	if (!S_ISREG(mode) && !S_ISDIR(mode))
		return 0;
	if (!cmek_reencrypt_enter(p->work))
		r = -ECANCELED;
	if (r == 0)
		r = cmek_tree_reencrypt_xattrs(p->params->tree, node, &sum);
	if (r == 0 && S_ISDIR(mode))
		r = cmek_tree_reencrypt_dir(p->params->tree, node, &sum);
	if (sum.moved > 0 && S_ISDIR(mode))
		cmek_content_names_changed(p->params->content);
	cmek_reencrypt_leave(p->work);
	p->counts->names_moved += sum.moved;
	p->counts->moved += sum.moved;
	p->counts->bad += sum.bad;
	p->counts->left += sum.left + is_refused(r);
	p->counts->busy += sum.busy;
	add_looked(p, mode, &sum);
	if (sum.bad + sum.left > 0 || is_refused(r)) {
		report_names(p, node, &sum);
		hinder(p, node, sum.bad > 0 ? "has names, symlinks or attributes that do not open" :
					      "has names, symlinks or attributes that could not be stored anew");
	}
	if (r == 0 && sum.moved > 0)
		cmek_reencrypt_tell(p->work, p->counts, 0);
	return is_refused(r) ? 0 : or_gone(p, r);
}

static int look_at(struct pass *p, const struct cmek_entry *entry)
{
	int r = p->measure ? 0 : move_tree_parts(p, entry->node, entry->st.st_mode);

	p->counts->looked.names++;
	if (r != 0 || !S_ISREG(entry->st.st_mode))
		return r;
	if (!p->measure)
		return move_file(p, entry->node, (uint64_t)entry->st.st_size);
	p->counts->bytes_total += (uint64_t)entry->st.st_size;
	p->counts->files_total++;
	return 0;
}

/* What a walk has passed over since it was asked last. seen: so much of that was told already. */
static void count_unseen(struct pass *p, const struct cmek_walk *walk, uint64_t *seen)
{
	uint64_t dir, unseen = cmek_walk_unseen(walk, &dir);

	if (unseen == *seen || p->measure)
		return;
	p->counts->left += unseen - *seen;
	*seen = unseen;
	hinder(p, dir, "has entries that can't be looked at (is something mounted there?)");
}

/* All that is in a directory, and below. The lookup on it is given away, unless it is the root. */
static int walk_from(struct pass *p, uint64_t node)
{
	uint64_t bad, unseen = 0;
	struct cmek_walk *walk = NULL;
	struct cmek_entry entry;
	int r = cmek_walk_new(p->params->tree, node, &walk);

	if (r < 0) {
		if (node != CMEK_NODE_ROOT)
			cmek_tree_forget(p->params->tree, node, 1);
		return r;
	}
	while (r == 0) {
		r = cmek_reencrypt_enter(p->work) ? cmek_walk_next(walk, &entry) : -ECANCELED;
		cmek_reencrypt_leave(p->work);
		count_unseen(p, walk, &unseen);
		if (r <= 0)
			break;
		r = look_at(p, &entry);
	}
	bad = cmek_walk_bad(walk);
	p->counts->old += p->counts->proving ? cmek_walk_lost(walk) : 0;
	if (bad > 0 && !p->measure)
		hinder(p, node, "has, or has below it, names that do not open");
	p->counts->bad += bad;
	(void)cmek_reencrypt_enter(p->work);
	cmek_walk_free(walk);
	cmek_reencrypt_leave(p->work);
	return r;
}

static int walk_tree(struct pass *p)
{
	int r = p->measure ? 0 : move_tree_parts(p, CMEK_NODE_ROOT, S_IFDIR);

	return r == 0 ? walk_from(p, CMEK_NODE_ROOT) : r;
}

/* A symlink by itself: the one who moved it may have moved it past us. */
static int look_at_link(struct pass *p, uint64_t node)
{
	struct cmek_tree_reencrypt sum = { 0 };
	int r = cmek_reencrypt_enter(p->work) ? cmek_tree_reencrypt_link(p->params->tree, node, &sum) : -ECANCELED;

	cmek_reencrypt_leave(p->work);
	p->counts->bad += sum.bad;
	add_looked(p, 0, &sum);
	if (sum.bad > 0)
		hinder(p, node, "is a symlink that does not open");
	return or_gone(p, r);
}

/* Something that was renamed or linked since the pass began, with all that is below it. Its lookup is given away. */
static int look_at_moved(struct pass *p, uint64_t node)
{
	struct stat st;
	int r = cmek_reencrypt_enter(p->work) ? cmek_tree_getattr_timeless(p->params->tree, node, &st) : -ECANCELED;

	cmek_reencrypt_leave(p->work);
	p->counts->looked.moved++;
	if (r == 0)
		r = move_tree_parts(p, node, st.st_mode & S_IFMT);
	if (r == 0 && S_ISDIR(st.st_mode))
		return walk_from(p, node);
	if (r == 0 && S_ISREG(st.st_mode))
		r = move_file(p, node, 0);
	else if (r == 0 && S_ISLNK(st.st_mode))
		r = look_at_link(p, node);
	cmek_tree_forget(p->params->tree, node, 1);
	return or_gone(p, r);
}

static int follow_moves(struct pass *p)
{
	uint64_t node;
	int r = 0;

	while (r == 0 && p->counts->proving && cmek_tree_moves_next(p->params->tree, &node))
		r = look_at_moved(p, node);
	return r;
}

/* Files that somebody has open, or knows, and that no name leads to any more. */
static int move_nameless(struct pass *p)
{
	uint64_t index = 0, node;
	struct stat st;
	int r = 0;

	while (r == 0 && (node = cmek_tree_next_node(p->params->tree, &index)) != 0) {
		r = cmek_reencrypt_enter(p->work) ? cmek_tree_getattr_timeless(p->params->tree, node, &st) : -ECANCELED;
		cmek_reencrypt_leave(p->work);
		if (r == -ECANCELED)
			break;
		if (r != 0 && !is_gone(r)) {
			p->counts->left++;
			hinder(p, node, "can't be looked at");
		}
		/* Gone: it was removed, or is known by another number, and has been looked at by its name. */
		if (r != 0 || st.st_nlink != 0) {
			r = 0;
			continue;
		}
		p->counts->looked.nameless++;
		r = move_tree_parts(p, node, st.st_mode & S_IFMT);
		if (r == 0 && S_ISREG(st.st_mode))
			r = move_file(p, node, (uint64_t)st.st_size);
	}
	return r;
}

int cmek_reencrypt_measure(struct cmek_reencrypt *work, struct cmek_reencrypt_counts *counts)
{
	struct pass p = { .work = work, .params = cmek_reencrypt_params(work), .counts = counts, .measure = true };

	counts->bytes_total = counts->files_total = 0;
	return walk_tree(&p);
}

int cmek_reencrypt_pass(struct cmek_reencrypt *work, struct cmek_reencrypt_counts *counts)
{
	struct pass p = { .work = work, .params = cmek_reencrypt_params(work), .counts = counts };
	bool all_noted = true;
	int r, settled;

	counts->bytes_done = counts->files_done = counts->moved = counts->bad = counts->left = counts->busy = counts->old = 0;
	memset(&counts->looked, 0, sizeof(counts->looked));
	counts->proved = false;
	if (counts->proving)
		cmek_tree_moves_watch(p.params->tree);
	r = walk_tree(&p);
	if (r == 0)
		r = follow_moves(&p);
	/* What loses its last name from here on has been looked at by its name, or as something that moved. */
	if (r == 0)
		r = move_nameless(&p);
	if (r == 0)
		r = follow_moves(&p);
	/*
	 * Nothing is noted that was not looked at. So all that there is at this moment has been, and what is made or sealed since
	 * the active key became that is under it: whatever is renamed from here on is clean.
	 */
	if (counts->proving)
		all_noted = cmek_tree_moves_end(p.params->tree);
	settled = settle_kept(&p);
	r = r == 0 ? settled : r;
	/* What waits for the committer is under the new key when it is in the store. */
	if (r == 0)
		r = cmek_reencrypt_enter(work) ? cmek_content_commit_all(p.params->content) : -ECANCELED;
	else
		(void)cmek_reencrypt_enter(work);
	cmek_reencrypt_leave(work);
	counts->proved = r == 0 && counts->proving && all_noted &&
			 counts->moved + counts->bad + counts->left + counts->busy + counts->old == 0;
	return r;
}
