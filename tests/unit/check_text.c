/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * base/text.h: what each form encodes to, and everything that its decoder must refuse.
 */
#include "config.h"

#include "base/text.h"
#include "tests/unit/unit.h"

/* ---- base64 and hex: RFC 4648 s10, and bytes that tell the two alphabets apart ---- */

static const struct {
	const char *bytes, *b64, *b64url, *hex;
} rfc4648_rows[] = {
	{ "", "", "", "" },
	{ "f", "Zg==", "Zg", "66" },
	{ "fo", "Zm8=", "Zm8", "666f" },
	{ "foo", "Zm9v", "Zm9v", "666f6f" },
	{ "foob", "Zm9vYg==", "Zm9vYg", "666f6f62" },
	{ "fooba", "Zm9vYmE=", "Zm9vYmE", "666f6f6261" },
	{ "foobar", "Zm9vYmFy", "Zm9vYmFy", "666f6f626172" },
	{ "\xfb\xff\xbf\xfe", "+/+//g==", "-_-__g", "fbffbffe" },
};

START_TEST(rfc4648)
{
	const char *bytes = rfc4648_rows[_i].bytes;
	size_t n = strlen(bytes);
	uint8_t back[16];
	char out[32];

	cmek_b64_encode(bytes, n, out);
	ck_assert_str_eq(out, rfc4648_rows[_i].b64);
	ck_assert_uint_eq(strlen(out), CMEK_B64_LEN(n));
	ck_assert_int_eq(cmek_b64_decode(out, strlen(out), back, n), (long)n);
	ck_assert_mem_eq(back, bytes, n);

	cmek_b64url_encode(bytes, n, out);
	ck_assert_str_eq(out, rfc4648_rows[_i].b64url);
	ck_assert_uint_eq(strlen(out), CMEK_B64URL_LEN(n));
	ck_assert_uint_eq(CMEK_B64URL_DECODED(strlen(out)), n);
	ck_assert_int_eq(cmek_b64url_decode(out, strlen(out), back, n), (long)n);
	ck_assert_mem_eq(back, bytes, n);

	cmek_hex_encode(bytes, n, out);
	ck_assert_str_eq(out, rfc4648_rows[_i].hex);
	ck_assert_uint_eq(strlen(out), CMEK_HEX_LEN(n));
	ck_assert_int_eq(cmek_hex_decode(out, strlen(out), back, n), (long)n);
	ck_assert_mem_eq(back, bytes, n);

	if (n > 0) {
		ck_assert_int_eq(cmek_hex_decode(out, strlen(out), back, n - 1), -ENOSPC);
		ck_assert_int_eq(cmek_b64_decode(rfc4648_rows[_i].b64, strlen(rfc4648_rows[_i].b64), back, n - 1),
				 -ENOSPC);
		ck_assert_int_eq(cmek_b64url_decode(rfc4648_rows[_i].b64url, strlen(rfc4648_rows[_i].b64url), back,
						    n - 1), -ENOSPC);
	}
}
END_TEST

START_TEST(round_trip_all_lengths)
{
	uint8_t in[200], back[200];
	char out[410];
	size_t n, i;

	for (i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)(i * 151 + 7);
	for (n = 0; n <= sizeof(in); n++) {
		cmek_b64_encode(in, n, out);
		ck_assert_int_eq(cmek_b64_decode(out, strlen(out), back, n), (long)n);
		ck_assert_mem_eq(back, in, n);
		cmek_b64url_encode(in, n, out);
		ck_assert_int_eq(cmek_b64url_decode(out, strlen(out), back, n), (long)n);
		ck_assert_mem_eq(back, in, n);
		cmek_hex_encode(in, n, out);
		ck_assert_int_eq(cmek_hex_decode(out, strlen(out), back, n), (long)n);
		ck_assert_mem_eq(back, in, n);
	}
}
END_TEST

static const char *const bad_b64url[] = { "A",	  "AAAAA", "Zg==", "Zh",  "Zm9", "Zm+v", "Zm/v", "Zm9v ", " Zm9v",
					  "Zm\n9v", "Zm9=",  "=",	 "Z===", "\303\251AA" };

START_TEST(b64url_refuses)
{
	uint8_t out[16];

	ck_assert_int_eq(cmek_b64url_decode(bad_b64url[_i], strlen(bad_b64url[_i]), out, sizeof(out)), -EINVAL);
}
END_TEST

static const char *const bad_b64[] = { "Zg",   "Zg=",  "Zm8",  "Z===",	"====", "=", "Zh==", "Zm9=",	 "Zm-v",
				       "Zm_v", "Zg==Zg==", "Zm9v\n", "Zg==\n", "Z=g=", "Zm8=A" };

START_TEST(b64_refuses)
{
	uint8_t out[16];

	ck_assert_int_eq(cmek_b64_decode(bad_b64[_i], strlen(bad_b64[_i]), out, sizeof(out)), -EINVAL);
}
END_TEST

START_TEST(hex_cases)
{
	uint8_t out[4];

	ck_assert_int_eq(cmek_hex_decode("aBcDeF01", 8, out, 4), 4);
	ck_assert_mem_eq(out, "\xab\xcd\xef\x01", 4);
	ck_assert_int_eq(cmek_hex_decode("abc", 3, out, 4), -EINVAL);
	ck_assert_int_eq(cmek_hex_decode("0g", 2, out, 4), -EINVAL);
	ck_assert_int_eq(cmek_hex_decode("0x12", 4, out, 4), -EINVAL);
	ck_assert_int_eq(cmek_hex_decode(" 1", 2, out, 4), -EINVAL);
	ck_assert_int_eq(cmek_hex_decode("1\0" "23", 4, out, 4), -EINVAL);
}
END_TEST

/* ---- UUID ---- */

START_TEST(uuid)
{
	static const uint8_t want[16] = { 0xf8, 0x1d, 0x4f, 0xae, 0x7d, 0xec, 0x11, 0xd0,
					  0xa7, 0x65, 0x00, 0xa0, 0xc9, 0x1e, 0x6b, 0xf6 };
	char text[CMEK_UUID_TEXT];
	uint8_t uuid[16];

	/* The example of RFC 9562 s4. */
	ck_assert_int_eq(cmek_uuid_decode("f81d4fae-7dec-11d0-a765-00a0c91e6bf6", uuid), 0);
	ck_assert_mem_eq(uuid, want, 16);
	memset(uuid, 0, sizeof(uuid));
	ck_assert_int_eq(cmek_uuid_decode("F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6", uuid), 0);
	ck_assert_mem_eq(uuid, want, 16);
	cmek_uuid_encode(uuid, text);
	ck_assert_str_eq(text, "f81d4fae-7dec-11d0-a765-00a0c91e6bf6");
}
END_TEST

static const char *const bad_uuids[] = {
	"",
	"f81d4fae7dec11d0a76500a0c91e6bf6",
	"f81d4fae-7dec-11d0-a765-00a0c91e6bf",
	"f81d4fae-7dec-11d0-a765-00a0c91e6bf60",
	"{f81d4fae-7dec-11d0-a765-00a0c91e6bf6}",
	"f81d4fa-e7dec-11d0-a765-00a0c91e6bf6",
	"g81d4fae-7dec-11d0-a765-00a0c91e6bf6",
	"f81d4fae 7dec 11d0 a765 00a0c91e6bf6",
	"f81d4fae-7dec-11d0-a765-00a0c91e6b-6",
};

START_TEST(uuid_refuses)
{
	uint8_t uuid[16] = { 0x5a };

	ck_assert_int_eq(cmek_uuid_decode(bad_uuids[_i], uuid), -EINVAL);
	ck_assert_uint_eq(uuid[0], 0x5a);
}
END_TEST

/* ---- numbers ---- */

static const struct {
	const char *text;
	uint64_t max;
	int ret;
	uint64_t value;
} u64_rows[] = {
	{ "0", UINT64_MAX, 0, 0 },
	{ "7", 7, 0, 7 },
	{ "007", 7, 0, 7 },
	{ "8", 7, -ERANGE, 0 },
	{ "18446744073709551615", UINT64_MAX, 0, UINT64_MAX },
	{ "18446744073709551616", UINT64_MAX, -ERANGE, 0 },
	{ "99999999999999999999999", UINT64_MAX, -ERANGE, 0 },
	{ "99999999999999999999999x", UINT64_MAX, -EINVAL, 0 },
	{ "", UINT64_MAX, -EINVAL, 0 },
	{ " 1", UINT64_MAX, -EINVAL, 0 },
	{ "1 ", UINT64_MAX, -EINVAL, 0 },
	{ "+1", UINT64_MAX, -EINVAL, 0 },
	{ "-1", UINT64_MAX, -EINVAL, 0 },
	{ "0x10", UINT64_MAX, -EINVAL, 0 },
	{ "1K", UINT64_MAX, -EINVAL, 0 },
}, size_rows[] = {
	{ "4096", UINT64_MAX, 0, 4096 },
	{ "0", UINT64_MAX, 0, 0 },
	{ "64K", UINT64_MAX, 0, 65536 },
	{ "64k", UINT64_MAX, 0, 65536 },
	{ "64KiB", UINT64_MAX, 0, 65536 },
	{ "64MiB", UINT64_MAX, 0, UINT64_C(64) << 20 },
	{ "3G", UINT64_MAX, 0, UINT64_C(3) << 30 },
	{ "2T", UINT64_MAX, 0, UINT64_C(2) << 40 },
	{ "16777215T", UINT64_MAX, 0, UINT64_C(16777215) << 40 },
	{ "16777216T", UINT64_MAX, -ERANGE, 0 },
	{ "64K", 65536, 0, 65536 },
	{ "65K", 65536, -ERANGE, 0 },
	{ "64KB", UINT64_MAX, -EINVAL, 0 },
	{ "64Ki", UINT64_MAX, -EINVAL, 0 },
	{ "64KiBs", UINT64_MAX, -EINVAL, 0 },
	{ "64B", UINT64_MAX, -EINVAL, 0 },
	{ "64iB", UINT64_MAX, -EINVAL, 0 },
	{ "64P", UINT64_MAX, -EINVAL, 0 },
	{ "64 K", UINT64_MAX, -EINVAL, 0 },
	{ "1.5G", UINT64_MAX, -EINVAL, 0 },
	{ "K", UINT64_MAX, -EINVAL, 0 },
	{ "", UINT64_MAX, -EINVAL, 0 },
	{ "-1K", UINT64_MAX, -EINVAL, 0 },
	{ "99999999999999999999999K", UINT64_MAX, -ERANGE, 0 },
}, duration_rows[] = {
	{ "0", 0, 0, 0 },
	{ "90", 0, 0, 90 },
	{ "30s", 0, 0, 30 },
	{ "5m", 0, 0, 300 },
	{ "2h", 0, 0, 7200 },
	{ "7d", 0, 0, 604800 },
	{ "", 0, -EINVAL, 0 },
	{ "m", 0, -EINVAL, 0 },
	{ "5M", 0, -EINVAL, 0 },
	{ "5ms", 0, -EINVAL, 0 },
	{ "5 m", 0, -EINVAL, 0 },
	{ "-5m", 0, -EINVAL, 0 },
	{ "1h30m", 0, -EINVAL, 0 },
	{ "213503982334601d", 0, 0, UINT64_C(18446744073709526400) },
	{ "213503982334602d", 0, -ERANGE, 0 },
};

START_TEST(parse_u64)
{
	uint64_t value = 12345;

	ck_assert_int_eq(cmek_parse_u64(u64_rows[_i].text, u64_rows[_i].max, &value), u64_rows[_i].ret);
	ck_assert_uint_eq(value, u64_rows[_i].ret ? 12345 : u64_rows[_i].value);
}
END_TEST

START_TEST(parse_size)
{
	uint64_t value = 12345;

	ck_assert_int_eq(cmek_parse_size(size_rows[_i].text, size_rows[_i].max, &value), size_rows[_i].ret);
	ck_assert_uint_eq(value, size_rows[_i].ret ? 12345 : size_rows[_i].value);
}
END_TEST

START_TEST(parse_duration)
{
	uint64_t value = 12345;

	ck_assert_int_eq(cmek_parse_duration(duration_rows[_i].text, &value), duration_rows[_i].ret);
	ck_assert_uint_eq(value, duration_rows[_i].ret ? 12345 : duration_rows[_i].value);
}
END_TEST

/* ---- times ---- */

static const struct {
	const char *text;
	int64_t seconds;
} time_rows[] = {
	{ "1970-01-01T00:00:00Z", 0 },
	{ "1969-12-31T23:59:59Z", -1 },
	{ "2026-11-22T10:11:12Z", 1795342272 },
	{ "2000-02-29T12:00:00Z", 951825600 },
	{ "2038-01-19T03:14:08Z", 2147483648 },
	{ "0000-01-01T00:00:00Z", -62167219200 },
	{ "9999-12-31T23:59:59Z", 253402300799 },
};

START_TEST(times)
{
	char text[CMEK_TIME_TEXT];
	int64_t seconds = 1;

	cmek_time_encode(time_rows[_i].seconds, text);
	ck_assert_str_eq(text, time_rows[_i].text);
	ck_assert_int_eq(cmek_time_decode(time_rows[_i].text, &seconds), 0);
	ck_assert_int_eq(seconds, time_rows[_i].seconds);
}
END_TEST

START_TEST(times_clamped)
{
	char text[CMEK_TIME_TEXT];

	cmek_time_encode(INT64_MAX, text);
	ck_assert_str_eq(text, "9999-12-31T23:59:59Z");
	cmek_time_encode(INT64_MIN, text);
	ck_assert_str_eq(text, "0000-01-01T00:00:00Z");
}
END_TEST

static const char *const bad_times[] = {
	"",
	"2026-11-22",
	"2026-11-22T10:11:12",
	"2026-11-22T10:11:12z",
	"2026-11-22 10:11:12Z",
	"2026-11-22T10:11:12+00:00",
	"2026-11-22T10:11:12.5Z",
	"2026-11-22T10:11:12Z ",
	"2026-1-22T10:11:12ZZZ",
	"2026-13-01T00:00:00Z",
	"2026-00-01T00:00:00Z",
	"2026-02-29T00:00:00Z",
	"2026-04-31T00:00:00Z",
	"2026-04-00T00:00:00Z",
	"2026-04-01T24:00:00Z",
	"2026-04-01T00:60:00Z",
	"2016-12-31T23:59:60Z",
	"9999-12-31T23:59:60Z",
	"-999-12-31T23:59:59Z",
};

START_TEST(times_refused)
{
	int64_t seconds = 12345;

	ck_assert_int_eq(cmek_time_decode(bad_times[_i], &seconds), -EINVAL);
	ck_assert_int_eq(seconds, 12345);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("text");
	TCase *tc = tcase_create("bytes");

	tcase_add_loop_test(tc, rfc4648, 0, UNIT_ROWS(rfc4648_rows));
	tcase_add_test(tc, round_trip_all_lengths);
	tcase_add_loop_test(tc, b64url_refuses, 0, UNIT_ROWS(bad_b64url));
	tcase_add_loop_test(tc, b64_refuses, 0, UNIT_ROWS(bad_b64));
	tcase_add_test(tc, hex_cases);
	tcase_add_test(tc, uuid);
	tcase_add_loop_test(tc, uuid_refuses, 0, UNIT_ROWS(bad_uuids));
	suite_add_tcase(s, tc);
	tc = tcase_create("numbers");
	tcase_add_loop_test(tc, parse_u64, 0, UNIT_ROWS(u64_rows));
	tcase_add_loop_test(tc, parse_size, 0, UNIT_ROWS(size_rows));
	tcase_add_loop_test(tc, parse_duration, 0, UNIT_ROWS(duration_rows));
	suite_add_tcase(s, tc);
	tc = tcase_create("times");
	tcase_add_loop_test(tc, times, 0, UNIT_ROWS(time_rows));
	tcase_add_test(tc, times_clamped);
	tcase_add_loop_test(tc, times_refused, 0, UNIT_ROWS(bad_times));
	suite_add_tcase(s, tc);
	return unit_run(s);
}
