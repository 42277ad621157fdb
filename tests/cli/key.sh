# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# The life of a local key.
t cmekctl key create local:db
t cmekctl key create local:backup.2026
t cmekctl key list local:
t cmekctl key rotate local:db
t cmekctl key describe local:db
t cmekctl key disable local:db
t cmekctl key rotate local:db
t cmekctl key enable local:db
t cmekctl key schedule-deletion --days 30 local:db
t cmekctl key describe local:db
t cmekctl key enable local:db
t cmekctl key list local:
t cmekctl key cancel-deletion local:db
t cmekctl key cancel-deletion local:db
t cmekctl key enable local:db
t cmekctl key schedule-deletion local:db
t cmekctl key schedule-deletion --days 0 local:db
t cmekctl key describe local:db
t cmekctl key cancel-deletion local:db
t cmekctl key create local:db
t cmekctl key list local:
t cmekctl -q key create local:quiet
t cmekctl key rotate -q local:quiet
t stat -c '%a %n' keys.json keys.json.key keys.json.lock
