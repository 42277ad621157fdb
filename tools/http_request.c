/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The parser of HTTP requests: whoever can connect writes these bytes. Strict where RFC 9112 allows it, so that there is one
 * reading of each request. It must not know what pages there are, nor where the bytes come from.
 */
#include "config.h"

#include "tools/http_request.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

/* A piece of the request. */
struct span {
	const char *at;
	size_t len;
};

static bool is_letter(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* tchar of RFC 9110 s5.6.2. */
static bool is_token_char(unsigned char c)
{
	return is_letter(c) || (c >= '0' && c <= '9') || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_token(struct span s)
{
	size_t i;

	for (i = 0; i < s.len && is_token_char((unsigned char)s.at[i]); i++)
		;
	return s.len > 0 && i == s.len;
}

static bool is_visible(struct span s)
{
	size_t i;

	for (i = 0; i < s.len && s.at[i] > ' ' && s.at[i] < 0x7f; i++)
		;
	return s.len > 0 && i == s.len;
}

static bool is(struct span s, const char *word)
{
	return s.len == strlen(word) && memcmp(s.at, word, s.len) == 0;
}

/* The next line of *rest, which then begins behind it. A line ends with LF or CRLF (RFC 9112 s2.2). False: it has no end yet. */
static bool take_line(struct span *rest, struct span *ret_line)
{
	const char *end = rest->len > 0 ? memchr(rest->at, '\n', rest->len) : NULL;

	if (!end)
		return false;
	*ret_line = (struct span){ rest->at, (size_t)(end - rest->at) };
	if (ret_line->len > 0 && end[-1] == '\r')
		ret_line->len--;
	rest->len -= (size_t)(end + 1 - rest->at);
	rest->at = end + 1;
	return true;
}

/* Up to the next blank of *rest, which then begins behind that; all of it when there is none. */
static struct span take_word(struct span *rest)
{
	const char *blank = rest->len > 0 ? memchr(rest->at, ' ', rest->len) : NULL;
	struct span word = { rest->at, blank ? (size_t)(blank - rest->at) : rest->len };
	size_t skip = word.len + (blank ? 1 : 0);

	rest->at += skip;
	rest->len -= skip;
	return word;
}

/* origin-form, or absolute-form, which a server has to take as well (RFC 9112 s3.2.2). */
static bool take_path(struct span target, struct cmek_http_request *request)
{
	static const char scheme[] = "http://";
	const size_t skip = sizeof(scheme) - 1;
	const char *query;
	size_t n;

	if (memchr(target.at, '#', target.len))
		return false;
	if (target.len > skip && strncasecmp(target.at, scheme, skip) == 0) {
		for (n = skip; n < target.len && target.at[n] != '/' && target.at[n] != '?'; n++)
			;
		if (n == skip)
			return false;
		target = (struct span){ target.at + n, target.len - n };
		if (target.len == 0 || target.at[0] == '?') {
			request->path = "/";
			request->path_len = 1;
			return true;
		}
	} else if (target.at[0] != '/') {
		/* "*", or the target of a CONNECT */
		return request->method == CMEK_HTTP_OTHER;
	}
	query = memchr(target.at, '?', target.len);
	request->path = target.at;
	request->path_len = query ? (size_t)(query - target.at) : target.len;
	return true;
}

/* The status. ret_minor: of the version. */
static int take_request_line(struct span line, struct cmek_http_request *request, char *ret_minor)
{
	struct span method, target, version = line;

	if (!is_token_char((unsigned char)line.at[0]))
		return 400;
	if (line.len > CMEK_HTTP_LINE_MAX)
		return 414;
	method = take_word(&version);
	target = take_word(&version);
	if (!is_token(method) || !is_visible(target) || version.len != 8 || memcmp(version.at, "HTTP/", 5) != 0 ||
	    version.at[5] < '0' || version.at[5] > '9' || version.at[6] != '.' || version.at[7] < '0' || version.at[7] > '9')
		return 400;
	if (version.at[5] != '1')
		return 505;
	*ret_minor = version.at[7];
	request->method = is(method, "GET") ? CMEK_HTTP_GET : is(method, "HEAD") ? CMEK_HTTP_HEAD : CMEK_HTTP_OTHER;
	return take_path(target, request) ? 200 : 400;
}

/* A field; false: it is none, or begins with white space, which once meant that it goes on with the one before. */
static bool take_field(struct span line, unsigned *hosts)
{
	const char *colon = memchr(line.at, ':', line.len);
	struct span name = { line.at, colon ? (size_t)(colon - line.at) : 0 }, value;
	size_t i;

	if (!is_token(name))
		return false;
	value = (struct span){ colon + 1, line.len - name.len - 1 };
	for (i = 0; i < value.len; i++) {
		unsigned char c = (unsigned char)value.at[i];

		if (c != '\t' && (c < ' ' || c == 0x7f))
			return false;
	}
	if (name.len == 4 && strncasecmp(name.at, "Host", 4) == 0)
		(*hosts)++;
	return true;
}

/* The status, or 0: there must be more. */
static int parse(struct span rest, struct cmek_http_request *request)
{
	struct span line = { NULL, 0 };
	unsigned hosts = 0;
	char minor = '0';
	int status;

	/* Empty lines before a request are passed over (RFC 9112 s2.2). */
	while (line.len == 0) {
		if (take_line(&rest, &line))
			continue;
		/* What speaks another protocol than this need not wait for a timeout to learn it. */
		if (rest.len > 1 ? !is_token_char((unsigned char)rest.at[0]) :
				   rest.len == 1 && !is_token_char((unsigned char)rest.at[0]) && rest.at[0] != '\r')
			return 400;
		return rest.len > CMEK_HTTP_LINE_MAX + 1 ? 414 : 0; /* a CR may be its last byte */
	}
	status = take_request_line(line, request, &minor);
	if (status != 200)
		return status;
	while (take_line(&rest, &line)) {
		if (line.len > 0 && !take_field(line, &hosts))
			return 400;
		if (line.len > 0)
			continue;
		/* RFC 9112 s3.2 */
		return hosts == 1 || (hosts == 0 && minor == '0') ? 200 : 400;
	}
	return 0;
}

int cmek_http_request_parse(const char *buf, size_t len, struct cmek_http_request *ret_request)
{
	struct cmek_http_request request = { .method = CMEK_HTTP_OTHER };
	size_t looked_at = len < CMEK_HTTP_HEAD_MAX ? len : CMEK_HTTP_HEAD_MAX;

	request.status = parse((struct span){ buf, looked_at }, &request);
	if (request.status == 0 && looked_at < CMEK_HTTP_HEAD_MAX)
		return -EAGAIN;
	if (request.status == 0)
		request.status = 431;
	*ret_request = request;
	return 0;
}
