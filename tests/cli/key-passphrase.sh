# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# A store with a passphrase.
umask 077
echo 'correct horse' >pass
echo 'battery staple' >wrong
t cmekctl key create --passphrase local:db
t cmekctl key create --passphrase --passphrase-file pass local:db
t ls
t cmekctl key describe --passphrase-file pass local:db
t cmekctl key describe --passphrase-file wrong local:db
t cmekctl key describe local:db
t cmekctl key describe --passphrase-file none local:db
t sh -c 'echo "correct horse" | cmekctl key list -q --passphrase-file /dev/stdin local:'
t sh -c 'cmekctl key list -q --passphrase-file /dev/fd/5 local: 5<pass'
: >empty
t cmekctl key list --passphrase-file empty local:
chmod 604 pass
t cmekctl key list --passphrase-file pass local:
