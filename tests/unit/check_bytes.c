/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * base/bytes.h: loads and stores at every alignment, and the reader at and past its end.
 */
#include "config.h"

#include "base/bytes.h"
#include "tests/unit/unit.h"

static const uint8_t pattern[] = { 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef };

START_TEST(load_store)
{
	uint8_t buf[32];

	memset(buf, 0xff, sizeof(buf));
	memcpy(buf + _i, pattern, sizeof(pattern));
	ck_assert_uint_eq(cmek_load16(buf + _i), 0x2301);
	ck_assert_uint_eq(cmek_load32(buf + _i), 0x67452301);
	ck_assert_uint_eq(cmek_load48(buf + _i), UINT64_C(0xab8967452301));
	ck_assert_uint_eq(cmek_load64(buf + _i), UINT64_C(0xefcdab8967452301));

	memset(buf, 0xff, sizeof(buf));
	cmek_store16(buf + _i, 0x2301);
	ck_assert_mem_eq(buf + _i, pattern, 2);
	ck_assert_uint_eq(buf[_i + 2], 0xff);
	cmek_store32(buf + _i, 0x67452301);
	ck_assert_mem_eq(buf + _i, pattern, 4);
	ck_assert_uint_eq(buf[_i + 4], 0xff);
	cmek_store48(buf + _i, UINT64_C(0xffffab8967452301));
	ck_assert_mem_eq(buf + _i, pattern, 6);
	ck_assert_uint_eq(buf[_i + 6], 0xff);
	cmek_store64(buf + _i, UINT64_C(0xefcdab8967452301));
	ck_assert_mem_eq(buf + _i, pattern, 8);
	ck_assert_uint_eq(buf[_i + 8], 0xff);
}
END_TEST

static const uint64_t extremes[] = {
	0, 1, 0x7f, 0x80, 0xff, 0x8000, 0xffff, 0x80000000, 0xffffffff, UINT64_C(0x800000000000),
	UINT64_C(0xffffffffffff), UINT64_C(1) << 63, UINT64_MAX
};

START_TEST(round_trip)
{
	uint64_t v = extremes[_i];
	uint8_t buf[8];

	cmek_store16(buf, (uint16_t)v);
	ck_assert_uint_eq(cmek_load16(buf), (uint16_t)v);
	cmek_store32(buf, (uint32_t)v);
	ck_assert_uint_eq(cmek_load32(buf), (uint32_t)v);
	cmek_store48(buf, v);
	ck_assert_uint_eq(cmek_load48(buf), v & UINT64_C(0xffffffffffff));
	cmek_store64(buf, v);
	ck_assert_uint_eq(cmek_load64(buf), v);
}
END_TEST

START_TEST(reader)
{
	struct cmek_reader r = cmek_reader_over(pattern, sizeof(pattern));

	ck_assert_uint_eq(cmek_read16(&r), 0x2301);
	ck_assert_uint_eq(cmek_read32(&r), 0xab896745);
	ck_assert_uint_eq(r.left, 2);
	ck_assert_ptr_eq(cmek_read_bytes(&r, 0), pattern + 6);
	ck_assert_ptr_eq(cmek_read_bytes(&r, 2), pattern + 6);
	ck_assert(!r.bad);
	ck_assert_ptr_eq(cmek_read_bytes(&r, 0), pattern + 8);
	ck_assert(!r.bad);
	r = cmek_reader_over(pattern, sizeof(pattern));
	ck_assert_uint_eq(cmek_read64(&r), UINT64_C(0xefcdab8967452301));
	ck_assert_uint_eq(r.left, 0);
}
END_TEST

/* A read past the end gives zeros and makes every later one fail, even one that there would be room for. */
START_TEST(reader_past_end)
{
	struct cmek_reader r = cmek_reader_over(pattern, (size_t)_i);

	ck_assert_uint_eq(cmek_read64(&r), 0);
	ck_assert(r.bad);
	ck_assert_ptr_null(cmek_read_bytes(&r, 0));
	ck_assert_uint_eq(cmek_read16(&r), 0);
	ck_assert_uint_eq(cmek_read32(&r), 0);
	ck_assert(r.bad);
}
END_TEST

START_TEST(reader_huge)
{
	struct cmek_reader r = cmek_reader_over(pattern, sizeof(pattern));

	ck_assert_ptr_null(cmek_read_bytes(&r, SIZE_MAX));
	ck_assert(r.bad);
}
END_TEST

START_TEST(is_zero)
{
	uint8_t buf[67] = { 0 };
	size_t n, i;

	for (n = 0; n <= sizeof(buf); n++) {
		ck_assert(cmek_is_zero(buf, n));
		for (i = 0; i < n; i++) {
			buf[i] = 0x80;
			ck_assert(!cmek_is_zero(buf, n));
			buf[i] = 0;
		}
	}
	ck_assert(cmek_is_zero(NULL, 0));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("bytes");
	TCase *tc = tcase_create("bytes");

	tcase_add_loop_test(tc, load_store, 0, 8);
	tcase_add_loop_test(tc, round_trip, 0, UNIT_ROWS(extremes));
	tcase_add_test(tc, reader);
	tcase_add_loop_test(tc, reader_past_end, 0, 8);
	tcase_add_test(tc, reader_huge);
	tcase_add_test(tc, is_zero);
	suite_add_tcase(s, tc);
	return unit_run(s);
}
