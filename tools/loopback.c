/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Addresses that only this machine can reach, as text. It must not know who listens there. */
#include "config.h"

#include "tools/loopback.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

/* The host part, without brackets. */
static bool parse_host(const char *host, bool v6, struct sockaddr_storage *addr, socklen_t *ret_len)
{
	struct sockaddr_in in4 = { .sin_family = AF_INET };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };

	memset(addr, 0, sizeof(*addr));
	if (v6 && inet_pton(AF_INET6, host, &in6.sin6_addr) == 1 && IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr)) {
		memcpy(addr, &in6, sizeof(in6));
		*ret_len = sizeof(in6);
		return true;
	}
	if (!v6 && inet_pton(AF_INET, host, &in4.sin_addr) == 1 && ntohl(in4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET) {
		memcpy(addr, &in4, sizeof(in4));
		*ret_len = sizeof(in4);
		return true;
	}
	return false;
}

static void set_port(struct sockaddr_storage *addr, uint16_t port)
{
	if (addr->ss_family == AF_INET6)
		((struct sockaddr_in6 *)addr)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)addr)->sin_port = htons(port);
}

int cmek_loopback_parse(const char *text, struct sockaddr_storage *ret_addr, socklen_t *ret_len, struct cmek_error *err)
{
	const char *colon = strrchr(text, ':'), *begin = text, *end = colon;
	struct sockaddr_storage addr;
	char host[INET6_ADDRSTRLEN];
	bool v6 = text[0] == '[';
	socklen_t len = 0;
	uint64_t port = 0;

	if (!colon || cmek_parse_u64(colon + 1, UINT16_MAX, &port) != 0)
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "'%s' is not ADDR:PORT, as in 127.0.0.1:9787 or [::1]:9787", text);
	if (v6 && colon > text && colon[-1] == ']') {
		begin++;
		end--;
	}
	/* Too long for any address, or "[": then it is none. */
	(void)snprintf(host, sizeof(host), "%.*s", end > begin ? (int)(end - begin) : 0, begin);
	if (end < begin || (size_t)(end - begin) != strlen(host) || !parse_host(host, v6, &addr, &len))
		return cmek_error_set(err, CMEK_E_USAGE, EINVAL,
				      "'%s' is not an address of this machine alone: metrics are served on 127.0.0.1 or [::1] "
				      "without TLS and login; for others put a reverse proxy that has both in front of it", text);
	set_port(&addr, (uint16_t)port);
	*ret_addr = addr;
	*ret_len = len;
	return 0;
}

void cmek_loopback_url(const struct sockaddr_storage *addr, char url[CMEK_LOOPBACK_URL_MAX])
{
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;
	const struct sockaddr_in *in4 = (const struct sockaddr_in *)addr;
	char host[INET6_ADDRSTRLEN] = "";

	if (addr->ss_family == AF_INET6) {
		(void)inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host)); /* there is room */
		(void)snprintf(url, CMEK_LOOPBACK_URL_MAX, "http://[%s]:%u/metrics", host, ntohs(in6->sin6_port));
	} else {
		(void)inet_ntop(AF_INET, &in4->sin_addr, host, sizeof(host));
		(void)snprintf(url, CMEK_LOOPBACK_URL_MAX, "http://%s:%u/metrics", host, ntohs(in4->sin_port));
	}
}
