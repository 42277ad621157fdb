# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# Help, version and mistakes on the command line.
t cmekctl --version
t cmekctl key create --version
t cmekctl --help
t cmekctl key --help
t cmekctl key create --help
t cmekctl key schedule-deletion --help
t cmekctl
t cmekctl nothing
t cmekctl key
t cmekctl key nothing
t cmekctl key create
t cmekctl key create local:a local:b
t cmekctl key create --nothing local:a
t cmekctl key create --passphrase-file
t cmekctl key create --passphrase=x local:a
t cmekctl --days 3 key create local:a
t cmekctl key create --nothing --json local:a
t cmekctl key create -- --json local:a
t mkfs.cmekfs --json store
t fsck.cmekfs --json -n -y store
