# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# cmekctl header backup and restore.
CMEKFS_VOLUMES=$PWD/volumes.json
export CMEKFS_VOLUMES
mkfs.cmekfs -q --key local:data -L label store
cmekctl -q key create local:backup
cmekctl -q slot add --purpose backup store local:backup
t cmekctl header backup store whole
t cmekctl header backup store whole
t cmekctl header backup --json --slot 1 store only-backup
t cmekctl header backup --slot 5 store file
t cmekctl header backup store nowhere/file
stat -c '%a %s' whole
t cmekctl key uses local:backup
# The data's key is destroyed: the backup's key opens the backup, and nothing else.
cmekctl -q slot remove store 1
t cmekctl status store
cmekctl -q key schedule-deletion --days 0 local:data
t cmekctl header restore store only-backup
t cmekctl header restore --unlock-key local:backup store only-backup
t cmekctl header restore --unlock-key local:backup --older store only-backup
t cmekctl slot list store
t cmekctl slot add store local:backup
# The other way round: the backup's key goes, the data's key opens the volume.
mkfs.cmekfs -q --key local:data2 --key local:backup2 store2
cmekctl -q header backup --slot 1 store2 only-backup2
cmekctl -q key schedule-deletion --days 0 local:backup2
t cmekctl header restore store2 only-backup2
t cmekctl header backup --force store2 only-backup2
# Another volume's header, with and without one in its place.
t cmekctl header restore store2 whole --unlock-key local:backup
rm store2/.cmekfs/header.?
t cmekctl header restore store2 only-backup2
rm -r store2/.cmekfs
t cmekctl header restore store2 only-backup2 --json
t cmekctl header restore store2 only-backup2
mkdir empty
t cmekctl header restore empty only-backup2
# Changed, or no header at all.
printf x | dd of=only-backup2 bs=1 seek=5000 conv=notrunc status=none
t cmekctl header restore store2 only-backup2
t cmekctl header restore store2 missing
