/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The datagram protocol of sd_notify(3), which is stable and documented there. It must not know what a mount is.
 */
#include "config.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/text.h"
#include "base/notify.h"

#define US_PER_MS 1000

void cmek_notify(const char *fmt, ...)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const char *path = getenv("NOTIFY_SOCKET");
	char text[512];
	size_t n;
	va_list ap;
	int sock, len;

	if (!path || (path[0] != '/' && path[0] != '@') || path[1] == '\0')
		return;
	n = strlen(path);
	if (n > sizeof(addr.sun_path))
		return;
	memcpy(addr.sun_path, path, n);
	if (path[0] == '@')
		addr.sun_path[0] = '\0';

	va_start(ap, fmt);
	len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (len <= 0 || (size_t)len >= sizeof(text))
		return;

	sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return;
	/* A manager that is gone or busy is no reason to stop a mount. */
	(void)sendto(sock, text, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&addr,
		     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
	close(sock);
}

bool cmek_notify_wanted(void)
{
	const char *path = getenv("NOTIFY_SOCKET");

	return path && *path;
}

uint64_t cmek_notify_watchdog_ms(void)
{
	const char *interval = getenv("WATCHDOG_USEC"), *whose = getenv("WATCHDOG_PID");
	uint64_t us, pid;

	if (!cmek_notify_wanted() || !interval || cmek_parse_u64(interval, INT64_MAX, &us) != 0 || us == 0)
		return 0;
	if (whose && (cmek_parse_u64(whose, INT32_MAX, &pid) != 0 ||
		      ((pid_t)pid != getpid() && (pid_t)pid != getppid())))
		return 0;
	return us < US_PER_MS ? 1 : us / US_PER_MS;
}
