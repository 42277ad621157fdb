/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fallocate and the search for data and holes: edges, many groups at once, the space of the store, and kills in between.
 * Random mixes with everything else are in check_content.
 */
#include "config.h"

#include <check.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/unit/content_fixture.h"

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define BLOCK 4096u
#define GROUP (96u * BLOCK)

static uint64_t store_bytes(struct volume *v, uint64_t node)
{
	struct stat st;
	char path[128];

	snprintf(path, sizeof(path), "%s/%llu", v->dir, (unsigned long long)node);
	ck_assert_int_eq(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void fill(struct cmek_ofile *file, uint64_t off, uint64_t len, uint8_t what)
{
	uint8_t *data = malloc(1 << 20);
	uint64_t n;

	ck_assert_ptr_nonnull(data);
	memset(data, what, 1 << 20);
	for (; len > 0; off += n, len -= n) {
		n = len < 1 << 20 ? len : 1 << 20;
		ck_assert_int_eq(cmek_content_write(file, data, n, off), 0);
	}
	free(data);
}

/* Every byte of the range has this value. */
static void expect_bytes(struct cmek_ofile *file, uint64_t off, uint64_t len, uint8_t what)
{
	uint8_t *data = malloc(1 << 20);
	uint64_t n, i;

	for (; len > 0; off += n, len -= n) {
		n = len < 1 << 20 ? len : 1 << 20;
		ck_assert_int_eq(cmek_content_read(file, data, n, off), (ssize_t)n);
		for (i = 0; i < n && data[i] == what; i++)
			;
		ck_assert_msg(i == n, "byte %llu is %u, not %u", (unsigned long long)(off + i), data[i], what);
	}
	free(data);
}

static const struct {
	int mode;
	uint64_t size, off, len;
	int result;
	uint64_t size_after;
} edges[] = {
	{ 0, 0, 0, 1, 0, 1 },
	{ 0, 100, 0, 50, 0, 100 },
	{ 0, 100, 50, 51, 0, 101 },
	{ 0, 5000, 20 * GROUP, 10, 0, 20 * GROUP + 10 },
	{ FALLOC_FL_KEEP_SIZE, 100, 50, GROUP, 0, 100 },
	{ FALLOC_FL_KEEP_SIZE, 0, 3 * GROUP + 5, 1, 0, 0 },
	{ PUNCH, 0, 0, 100, 0, 0 },
	{ PUNCH, 100, 0, 100, 0, 100 },
	{ PUNCH, 100, 10, 20, 0, 100 },
	{ PUNCH, 100, 10, 1000, 0, 100 },
	{ PUNCH, 100, 100, 1000, 0, 100 },
	{ PUNCH, 100, 5000, 1000, 0, 100 },
	{ PUNCH, BLOCK, 0, BLOCK, 0, BLOCK },
	{ PUNCH, 3 * BLOCK, 1, BLOCK, 0, 3 * BLOCK },
	{ PUNCH, 3 * BLOCK, BLOCK - 1, BLOCK + 2, 0, 3 * BLOCK },
	{ PUNCH, 3 * BLOCK + 7, BLOCK, 3 * BLOCK, 0, 3 * BLOCK + 7 },
	{ PUNCH, 2 * GROUP, GROUP - 1, 2, 0, 2 * GROUP },
	{ PUNCH, 2 * GROUP + 9, GROUP, GROUP + 9, 0, 2 * GROUP + 9 },
	{ FALLOC_FL_ZERO_RANGE, 100, 50, 100, 0, 150 },
	{ FALLOC_FL_ZERO_RANGE, 0, 50, 100, 0, 150 },
	{ FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 100, 50, 100, 0, 100 },
	{ 0, 100, 0, 0, -EINVAL, 100 },
	{ FALLOC_FL_PUNCH_HOLE, 100, 0, 10, -EOPNOTSUPP, 100 },
	{ FALLOC_FL_COLLAPSE_RANGE, 2 * BLOCK, 0, BLOCK, -EOPNOTSUPP, 2 * BLOCK },
	{ 0, 100, UINT64_MAX - 5, 10, -EFBIG, 100 },
	{ 0, 100, UINT64_C(1) << 62, 10, -EFBIG, 100 },
};

START_TEST(edge)
{
	int row = _i / 2;
	uint64_t off = edges[row].off, size = edges[row].size, after = edges[row].size_after, end;
	bool zeroes = edges[row].result == 0 && (edges[row].mode & ~FALLOC_FL_KEEP_SIZE) != 0;
	struct cmek_ofile *file;
	struct volume v;
	int pass;

	volume_start(&v, BLOCK, _i % 2);
	file = file_open(&v, 1);
	fill(file, 0, size, 7);
	ck_assert_int_eq(cmek_content_fallocate(file, edges[row].mode, off, edges[row].len), edges[row].result);
	end = off + edges[row].len < size ? off + edges[row].len : size;
	for (pass = 0; pass < 2; pass++) {
		ck_assert_uint_eq(cmek_ofile_size(file), after);
		if (zeroes && off < size) {
			expect_bytes(file, 0, off, 7);
			expect_bytes(file, off, end - off, 0);
			expect_bytes(file, end, size - end, 7);
		} else {
			expect_bytes(file, 0, size, 7);
		}
		expect_bytes(file, size, after - size, 0);
		close_and_settle(&v, file);
		file = file_open(&v, 1);
	}
	cmek_ofile_close(file);
	ck_assert_int_eq(v.reports, 0);
	volume_stop(&v);
}
END_TEST

/* Punches small and large give the store its space back; what is written afterwards is there. */
START_TEST(space_goes_and_comes)
{
	const uint64_t groups = 60;
	struct cmek_ofile *file;
	struct volume v;
	uint64_t full, i;

	volume_start(&v, BLOCK, _i % 2);
	file = file_open(&v, 1);
	fill(file, 0, groups * GROUP, 7);
	ck_assert_int_eq(cmek_content_sync(file, false), 0);
	full = store_bytes(&v, 1);
	ck_assert_int_eq(cmek_content_fallocate(file, PUNCH, BLOCK, 50 * BLOCK), 0);
	ck_assert_int_eq(cmek_content_sync(file, false), 0);
	ck_assert_uint_le(store_bytes(&v, 1), full - 50 * BLOCK);
	/* most of it, from the middle of a group to the middle of another */
	ck_assert_int_eq(cmek_content_fallocate(file, PUNCH, 5 * GROUP + 100, 50 * GROUP), 0);
	ck_assert_uint_le(store_bytes(&v, 1), full - 49 * GROUP);
	for (i = 0; i < 2; i++) {
		expect_bytes(file, 0, BLOCK, 7);
		expect_bytes(file, BLOCK, 50 * BLOCK, 0);
		expect_bytes(file, 51 * BLOCK, 5 * GROUP + 100 - 51 * BLOCK, 7);
		expect_bytes(file, 5 * GROUP + 100, 50 * GROUP, 0);
		expect_bytes(file, 55 * GROUP + 100, 5 * GROUP - 100, 7);
		close_and_settle(&v, file);
		file = file_open(&v, 1);
	}
	fill(file, 20 * GROUP, 3 * GROUP, 9);
	fill(file, 30 * GROUP + 5, 1, 9);
	close_and_settle(&v, file);
	file = file_open(&v, 1);
	expect_bytes(file, 5 * GROUP + 100, 15 * GROUP - 100, 0);
	expect_bytes(file, 20 * GROUP, 3 * GROUP, 9);
	expect_bytes(file, 23 * GROUP, 7 * GROUP + 5, 0);
	expect_bytes(file, 30 * GROUP + 5, 1, 9);
	expect_bytes(file, 30 * GROUP + 6, 10 * GROUP, 0);
	/* zeroed, and still with room */
	ck_assert_int_eq(cmek_content_fallocate(file, FALLOC_FL_ZERO_RANGE, 0, groups * GROUP), 0);
	ck_assert_int_eq(cmek_content_sync(file, false), 0);
	expect_bytes(file, 0, groups * GROUP, 0);
	ck_assert_uint_ge(store_bytes(&v, 1), groups * GROUP);
	cmek_ofile_close(file);
	ck_assert_int_eq(v.reports, 0);
	volume_stop(&v);
}
END_TEST

/* More absent ranges than a page can name, made by punching; some of them are closed by pages of holes. */
START_TEST(many_large_holes)
{
	const uint64_t groups = 14 * 20;
	struct cmek_ofile *file;
	struct volume v;
	uint64_t i;

	volume_start(&v, BLOCK, _i % 2);
	file = file_open(&v, 1);
	fill(file, 0, groups * GROUP, 7);
	for (i = 0; i < 14; i++)
		ck_assert_int_eq(cmek_content_fallocate(file, PUNCH, (i * 20 + 1) * GROUP, (i == 5 ? 17 : 18) * GROUP), 0);
	/* the records are still there: what they say of groups that are holes now must not come back */
	ck_assert_int_eq(cmek_content_sync(file, false), 0);
	cmek_ofile_close(file);
	close_and_settle(&v, NULL);
	file = file_open(&v, 1);
	for (i = 0; i < 14; i++) {
		expect_bytes(file, i * 20 * GROUP, GROUP, 7);
		expect_bytes(file, (i * 20 + 1) * GROUP, (i == 5 ? 17 : 18) * GROUP, 0);
		expect_bytes(file, (i * 20 + 19) * GROUP, GROUP, 7);
	}
	cmek_ofile_close(file);
	ck_assert_int_eq(v.reports, 0);
	volume_stop(&v);
}
END_TEST

static void expect_seek(struct cmek_ofile *file, int whence, uint64_t off, int64_t want)
{
	uint64_t got = 0;
	int r = cmek_content_seek(file, whence, off, &got);

	ck_assert_msg(want < 0 ? r == want : r == 0 && got == (uint64_t)want, "seek %d from %llu: %d, %llu", whence,
		      (unsigned long long)off, r, (unsigned long long)got);
}

START_TEST(seeks)
{
	const uint64_t tib = UINT64_C(1) << 40;
	struct cmek_ofile *file;
	struct volume v;
	int pass;

	volume_start(&v, BLOCK, _i % 2);
	file = file_open(&v, 1);
	expect_seek(file, SEEK_DATA, 0, -ENXIO);
	expect_seek(file, SEEK_HOLE, 0, -ENXIO);
	fill(file, BLOCK, BLOCK, 1);
	fill(file, 40 * GROUP + 5 * BLOCK + 10, 20, 1);
	fill(file, tib, 1, 1);
	ck_assert_int_eq(cmek_content_truncate(file, tib + 3 * GROUP + 1), 0);
	for (pass = 0; pass < 2; pass++) {
		expect_seek(file, SEEK_DATA, 0, BLOCK);
		expect_seek(file, SEEK_DATA, BLOCK + 5, BLOCK + 5);
		expect_seek(file, SEEK_HOLE, BLOCK + 5, 2 * BLOCK);
		expect_seek(file, SEEK_HOLE, 5, 5);
		expect_seek(file, SEEK_DATA, 2 * BLOCK, 40 * GROUP + 5 * BLOCK);
		expect_seek(file, SEEK_DATA, 40 * GROUP + 6 * BLOCK, (int64_t)tib / BLOCK * BLOCK);
		expect_seek(file, SEEK_HOLE, tib, (int64_t)(tib / BLOCK + 1) * BLOCK);
		expect_seek(file, SEEK_DATA, tib + BLOCK, -ENXIO);
		expect_seek(file, SEEK_HOLE, tib + 3 * GROUP, (int64_t)tib + 3 * GROUP);
		expect_seek(file, SEEK_HOLE, tib + 3 * GROUP + 1, -ENXIO);
		expect_seek(file, SEEK_SET, 0, -EINVAL);
		close_and_settle(&v, file);
		file = file_open(&v, 1);
	}
	/* all data, with a short tail: the hole is at the end */
	ck_assert_int_eq(cmek_content_truncate(file, 2 * BLOCK), 0);
	fill(file, 0, 2 * BLOCK + 77, 1);
	expect_seek(file, SEEK_HOLE, 0, 2 * BLOCK + 77);
	expect_seek(file, SEEK_DATA, 2 * BLOCK + 76, 2 * BLOCK + 76);
	cmek_ofile_close(file);
	volume_stop(&v);
}
END_TEST

/* ---- killed at any time ---- */

#define CRASH_BLOCKS (45u * 96u)
#define CRASH_VERSIONS 256u

/* What each block was made, version by version, and the last version that a sync has answered for; shared. */
struct crash_model {
	bool hole[CRASH_BLOCKS][CRASH_VERSIONS];
	uint32_t written[CRASH_BLOCKS], synced[CRASH_BLOCKS];
};

static void crash_block(uint8_t *buf, uint32_t block, uint32_t version)
{
	uint32_t i;

	memset(buf, 0, BLOCK);
	memcpy(buf, &block, 4);
	memcpy(buf + 4, &version, 4);
	for (i = 8; i < BLOCK; i++)
		buf[i] = (uint8_t)(block + version * 3 + i + 1);
}

static bool next_version(struct crash_model *m, uint32_t block, bool hole)
{
	if (m->written[block] + 1 == CRASH_VERSIONS)
		return false;
	m->hole[block][m->written[block] + 1] = hole;
	m->written[block]++;
	return true;
}

static void crash_child(struct volume *v, struct crash_model *m, unsigned seed)
{
	struct cmek_ofile *file = file_open(v, 1);
	uint8_t *buf = malloc(256 * BLOCK);
	uint32_t i, first, n;
	bool room = true;

	while (room) {
		bool punch = rand_r(&seed) % 3 == 0;
		int kind = rand_r(&seed) % 8;

		n = (uint32_t)rand_r(&seed) % (kind < 6 ? 8 : kind < 7 ? 200 : punch ? 30 * 96 : 200) + 1;
		first = (uint32_t)rand_r(&seed) % (CRASH_BLOCKS - n);
		for (i = 0; i < n && room; i++) {
			room = next_version(m, first + i, punch);
			if (!punch)
				crash_block(buf + i * BLOCK, first + i, m->written[first + i]);
		}
		if (!room)
			break;
		if (punch ? cmek_content_fallocate(file, rand_r(&seed) % 2 ? PUNCH : FALLOC_FL_ZERO_RANGE,
						   (uint64_t)first * BLOCK, (uint64_t)n * BLOCK) != 0 :
			    cmek_content_write(file, buf, (size_t)n * BLOCK, (uint64_t)first * BLOCK) != 0)
			_exit(1);
		if (rand_r(&seed) % 8 == 0) {
			if (cmek_content_sync(file, true) != 0)
				_exit(2);
			memcpy(m->synced, m->written, sizeof(m->synced));
		}
	}
	for (;;)
		pause();
}

/* Version `version` of a block was written or punched, and nothing older than what was synced is there. */
static void crash_check(const struct crash_model *m, uint32_t block, const uint8_t *buf)
{
	uint8_t want[BLOCK];
	uint32_t version;
	bool ok = false;

	memcpy(&version, buf + 4, 4);
	if (version == 0) {
		memset(want, 0, sizeof(want));
		for (version = m->synced[block]; version <= m->written[block]; version++)
			ok |= version == 0 || m->hole[block][version];
	} else {
		crash_block(want, block, version);
		ok = version >= m->synced[block] && version <= m->written[block] && !m->hole[block][version];
	}
	ck_assert_msg(ok && memcmp(buf, want, BLOCK) == 0, "block %u: version %u, synced %u, written %u", block, version,
		      m->synced[block], m->written[block]);
}

START_TEST(killed_at_any_time)
{
	struct crash_model *m = mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct cmek_ofile *file;
	uint8_t buf[BLOCK];
	struct volume v;
	int round, status;
	uint32_t i;
	pid_t pid;

	ck_assert_ptr_ne(m, MAP_FAILED);
	volume_start(&v, BLOCK, true);
	for (round = 0; round < 8; round++) {
		ck_assert_int_eq(cmek_content_free(v.content), 0); /* threads do not survive a fork */
		pid = fork();
		ck_assert_int_ge(pid, 0);
		if (pid == 0) {
			content_start(&v, false);
			crash_child(&v, m, (unsigned)(_i * 100 + round));
		}
		usleep((useconds_t)(20000 + random() % 200000));
		kill(pid, SIGKILL);
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert(WIFSIGNALED(status));
		content_start(&v, false);
		file = file_open(&v, 1);
		for (i = 0; i < CRASH_BLOCKS; i++) {
			ssize_t n;

			memset(buf, 0, sizeof(buf));
			n = cmek_content_read(file, buf, sizeof(buf), (uint64_t)i * BLOCK);
			ck_assert_msg(n >= 0, "round %d block %u: %zd", round, i, n);
			crash_check(m, i, buf);
		}
		/* The next round starts from nothing. */
		memset(m, 0, sizeof(*m));
		ck_assert_int_eq(cmek_content_truncate(file, 0), 0);
		ck_assert_int_eq(cmek_content_sync(file, false), 0);
		cmek_ofile_close(file);
	}
	volume_stop(&v);
	munmap(m, sizeof(*m));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("punch");
	TCase *tc = tcase_create("punch");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, edge, 0, 2 * (int)(sizeof(edges) / sizeof(*edges)));
	tcase_add_loop_test(tc, space_goes_and_comes, 0, 2);
	tcase_add_loop_test(tc, many_large_holes, 0, 2);
	tcase_add_loop_test(tc, seeks, 0, 2);
	tcase_add_loop_test(tc, killed_at_any_time, 0, 4);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
