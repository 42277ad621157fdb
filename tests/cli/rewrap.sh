# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# cmekctl rewrap.
CMEKFS_VOLUMES=$PWD/volumes.json
export CMEKFS_VOLUMES
t mkfs.cmekfs -q --key local:a --key local:b store
t cmekctl rewrap store
cmekctl -q key rotate local:a
cmekctl -q key rotate local:a
t cmekctl rewrap store
t cmekctl slot list store
t cmekctl rewrap --force --slot 1 store
cmekctl -q key create local:c
t cmekctl rewrap --to local:c store
t cmekctl rewrap --to local:c --slot 0 store
t cmekctl rewrap --to local:none --slot 0 store
t cmekctl rewrap --slot 7 store
cmekctl -q key rotate local:b
cmekctl -q key rotate local:c
cmekctl -q key disable local:b
t cmekctl rewrap store
t cmekctl rewrap --json store
t cmekctl rewrap --json missing
t cmekctl rewrap
t cmekctl rewrap --all store
t cmekctl rewrap --all --to local:b
# All volumes, the lines in the order of their UUIDs.
cmekctl -q key enable local:b
mkfs.cmekfs -q --key local:a --uuid ffffffff-0000-4000-8000-000000000001 store2
mkfs.cmekfs -q --key local:d --uuid ffffffff-0000-4000-8000-000000000002 store3
mkfs.cmekfs -q --key local:e --uuid ffffffff-0000-4000-8000-000000000003 store4
cmekctl -q key rotate local:a
cmekctl -q key disable local:d
rm -r store4
t cmekctl rewrap --all --jobs 2
cmekctl -q key enable local:d
mkfs.cmekfs -q --key local:e --uuid ffffffff-0000-4000-8000-000000000003 store4
t cmekctl rewrap --all
t cmekctl rewrap --all --json
