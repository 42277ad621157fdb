# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# JSON of the key commands: the names are an interface.
t cmekctl key create --json local:db
t cmekctl --json key rotate local:db
t cmekctl key schedule-deletion --json local:db
t cmekctl key describe --json local:db
t cmekctl key schedule-deletion --days 0 --json local:db
t cmekctl key create local:two
t cmekctl key list --json local:
t cmekctl key describe --json local:none
t cmekctl key rotate --json local:db
