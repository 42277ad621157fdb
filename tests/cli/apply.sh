# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# cmekctl slot apply.
CMEKFS_VOLUMES=$PWD/volumes.json
export CMEKFS_VOLUMES
mkfs.cmekfs -q --key local:a --key local:old store
for key in b recovery; do
	cmekctl -q key create local:$key
done
cmekctl -q slot add --purpose recovery store local:recovery
cat >manifest <<'END'
{ "region_specs": [
  { "region": "here", "key_spec": { "type": "LOCAL", "uri": "local:b" } },
  { "key_spec": { "type": "LOCAL", "uri": "local:a" } } ] }
END
t cmekctl slot apply --dry-run store manifest
t cmekctl slot apply store manifest
t cmekctl slot list store
t cmekctl slot apply --json store manifest
sed -i s/here/there/ manifest
t cmekctl slot apply store manifest
t cmekctl slot apply store manifest
# What is wrong with a manifest is told with its place.
bad()
{
	echo "$1" >bad
	t cmekctl slot apply store bad
}
bad '[]'
bad '{}'
bad '{ "region_specs": [] }'
bad '{ "region_specs": [ { "region": "r" } ] }'
bad '{ "region_specs": [ { "key_spec": { "type": "VAULT", "uri": "x" } } ] }'
bad '{ "region_specs": [ { "key_spec": { "type": "LOCAL", "uri": "" } } ] }'
bad '{ "region_specs": [ { "key_spec": { "type": "LOCAL", "uri": "local:a", "auth_principal": "me" } } ] }'
bad '{ "region_specs": [ { "key_spec": { "type": "LOCAL", "uri": "local:a", "who": "me" } } ] }'
bad '{ "action": "DROP" }'
bad '{ "region_specs": [ { "key_spec": { "type": "LOCAL", "uri": "local:a" } }, { "key_spec": { "type": "LOCAL", "uri": "local:a" } } ] }'
bad '{ "region_specs": [ { "key_spec": { "type": "LOCAL", "uri": "local:none" } } ] }'
# Revoked: one key, then all for data; never what would leave nothing.
echo '{ "action": "REVOKE", "region_specs": [ { "key_spec": { "type": "LOCAL", "uri": "local:b" } } ] }' >revoke
t cmekctl slot apply store revoke
t cmekctl slot apply store revoke
echo '{ "action": "REVOKE" }' >revoke
t cmekctl slot apply store revoke
t cmekctl slot list store
echo '{ "action": "REVOKE", "region_specs": [ { "key_spec": { "type": "LOCAL", "uri": "local:recovery" } } ] }' >revoke
t cmekctl slot apply store revoke
