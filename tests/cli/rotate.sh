# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# cmekctl rotate.
CMEKFS_VOLUMES=$PWD/volumes.json
export CMEKFS_VOLUMES
mkfs.cmekfs -q --key local:a --key local:b store
t cmekctl rotate store
t cmekctl rotate --json store
cmekctl -q key disable local:b
t cmekctl rotate store
t cmekctl status store
t fsck.cmekfs --data store
