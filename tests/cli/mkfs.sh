# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# mkfs.cmekfs: its result, its mistakes and its refusals.
CMEKFS_VOLUMES=$PWD/volumes.json
export CMEKFS_VOLUMES
t mkfs.cmekfs --help
t mkfs.cmekfs --key local:db --key local:spare -b 16K -L 'the label' store
t mkfs.cmekfs --key local:db store
t mkfs.cmekfs --json --key local:db store
t mkfs.cmekfs -q --key local:db --no-pin unpinned
t mkfs.cmekfs --key local:db --no-pin unpinned/more
t mkfs.cmekfs --key local:db --no-pin unpinned2
t mkfs.cmekfs --key local:db missing/store
t mkfs.cmekfs --key local:db
t mkfs.cmekfs new
t mkfs.cmekfs --key local:db --key local:db new
t mkfs.cmekfs --key db new
t mkfs.cmekfs --key local:db -b 5000 new
t mkfs.cmekfs --key local:db --uuid 7 new
t mkfs.cmekfs --key arn:aws:kms:eu-central-1:111122223333:key/1234abcd new
mkdir headless
cp -P store/.cmekfs.dir headless/
t mkfs.cmekfs --key local:db headless
t cmekctl key disable local:spare
t mkfs.cmekfs --key local:db --key local:spare new
t ls -A
