# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# cmekctl status and header dump.
CMEKFS_VOLUMES=$PWD/volumes.json
export CMEKFS_VOLUMES
CMEKFS_RUNTIME_DIR=$PWD/sockets
export CMEKFS_RUNTIME_DIR
# The longest symbolic link depends on the file system of $TMPDIR.
t mkfs.cmekfs -q --key local:db --key local:spare -L label store
cmekctl header dump store | grep -v 'symlink max'
cmekctl --json header dump store | sed -e '/symlink_max/d' -e 's/"wrapped": "[^"]*"/"wrapped": "BASE64"/'
t cmekctl status store
t mkfs.cmekfs -q --key local:db --journal-size 8M -L journal other
t cmekctl status other
t cmekctl status --journal other
t mkfs.cmekfs -q --key local:db --journal-size 1M third
cmekctl -q key rotate local:db
cmekctl -q key rotate local:db
cmekctl -q key rotate local:spare
t cmekctl status store
t cmekctl key disable local:spare
echo damage >store/.cmekfs/header.1
rm volumes.json
t cmekctl status store
t cmekctl --json status store
t cmekctl status .
t cmekctl status missing
echo damage >store/.cmekfs/header.0
t cmekctl header dump store
t cmekctl --json status store
