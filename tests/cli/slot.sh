# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# cmekctl slot, and key uses.
CMEKFS_VOLUMES=$PWD/volumes.json
export CMEKFS_VOLUMES
t mkfs.cmekfs -q --key local:a -L label store
t cmekctl key create local:b
t cmekctl slot add store local:b
t cmekctl slot add store local:b
t cmekctl slot add --json --purpose backup store local:b
t cmekctl slot add store local:nope
t cmekctl slot add --purpose other store local:b
t cmekctl slot list store
t cmekctl key uses local:b
t cmekctl key uses --json local:a
t cmekctl key uses local:c
t cmekctl slot remove store 0
t cmekctl slot remove store 0
t cmekctl slot remove store x
t cmekctl slot remove --json store 1
t cmekctl slot remove store 2
t cmekctl slot add -q store local:a
t cmekctl key disable local:a
t cmekctl slot remove --unlock-slot 2 store 2
t cmekctl key enable local:a
t cmekctl slot remove --rekey store 2
t cmekctl slot list --json store
t cmekctl key uses local:b
rm -r store
t cmekctl key uses local:a
grep resolved volumes.json
# A recovery key in a store of its own, which a passphrase protects.
mkdir safe
echo secret >passphrase
chmod 600 passphrase
t mkfs.cmekfs -q --key local:a store
CMEKFS_LOCAL_KEYSTORE=$PWD/safe/keys.json t cmekctl key create --passphrase --passphrase-file passphrase local:recovery
t cmekctl slot add --purpose recovery --key-keystore safe/keys.json --key-passphrase-file passphrase store local:recovery
t cmekctl slot remove store 0
t cmekctl slot remove --keystore safe/keys.json --passphrase-file passphrase store 0
t cmekctl slot list store
