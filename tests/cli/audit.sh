# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# What the programs leave in the audit log, and how it is followed.
CMEKFS_VOLUMES=$PWD/volumes.json
CMEKFS_LOCAL_KEYSTORE=$PWD/keys.json
CMEKFS_AUDIT_LOG=$PWD/audit.log
export CMEKFS_VOLUMES CMEKFS_LOCAL_KEYSTORE CMEKFS_AUDIT_LOG

events()
{
	sed -n -e '/"operation"/s/^{"time":"[^"]*","event":"\([^"]*\)","outcome":"\([^"]*\)".*"operation":"\([^"]*\)".*/  \1 \3 \2/p' \
		-e 's/^{"time":"[^"]*","event":"\([^"]*\)","outcome":"\([^"]*\)".*/\1 \2/p' audit.log
}

t cmekctl audit verify
cmekctl -q key create local:one
cmekctl -q key create local:two
mkfs.cmekfs -q -L db -k local:one store
cmekctl -q slot add store local:two
cmekctl -q key rotate local:one
cmekctl -q rewrap --slot 0 store
cmekctl -q rotate store
cmekctl -q slot remove store 1 >/dev/null
cmekctl -q header backup store backup
cmekctl -q key disable local:one
cmekctl -q rotate store 2>/dev/null
cmekctl -q key enable local:one
cmekctl -q header restore store backup
cmekctl -q shred --volume --yes-destroy db store
events
t cmekctl -q audit verify
t cmekctl -q audit verify audit.log
mv audit.log audit.log.1
cmekctl -q key create local:three
t cmekctl -q audit verify audit.log.1 audit.log
t cmekctl -q audit verify audit.log audit.log.1
sed -i 's/local:three/local:other/' audit.log
t cmekctl audit verify
CMEKFS_AUDIT_LOG=$PWD/nowhere/audit.log
t cmekctl key create local:four
