# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# cmekctl shred, and what a shredded volume says.
CMEKFS_VOLUMES=$PWD/volumes.json
export CMEKFS_VOLUMES
mkfs.cmekfs -q --key local:a -L db store
cmekctl -q slot add store local:a --purpose backup
cmekctl -q key create local:b
cmekctl -q slot add store local:b
cmekctl -q header backup --slot 2 store backup
mkfs.cmekfs -q --key local:b store2
head -c 100000 /dev/zero >store/.cmekfs/journal.0
t cmekctl shred store
t cmekctl shred --volume store
t cmekctl shred --volume --destroy store
t cmekctl shred --volume --yes-destroy other store
t cmekctl shred --volume --kms --yes-destroy db store
t cmekctl shred --slot 9 store
t cmekctl shred --retired-deks store
t cmekctl shred --volume --kms --slot 1 store
t cmekctl shred --slot 1 --kms --yes-destroy db store
# A slot, with its key.
cmekctl -q key create local:c
cmekctl -q slot add store local:c
t cmekctl shred --slot 3 --kms --days 0 --yes-destroy db store
t cmekctl slot list store
t cmekctl key describe local:c
# The volume. A key that can't sign is told before anything is done.
openssl genpkey -algorithm ed25519 -out sign.pem 2>/dev/null
openssl pkey -in sign.pem -pubout -out public.pem
echo nothing >bad.pem
t cmekctl shred --volume --yes-destroy db --certificate cert.json --sign-key bad.pem store
t cmekctl status -q store
cp store/.cmekfs/header.0 old-header
t cmekctl shred --volume --kms --shared-keys --days 3 --yes-destroy db --certificate cert.json --sign-key sign.pem store
sed -e 's/"value": ".*"/"value": SIGNATURE/' -e 's/"public_key": ".*"/"public_key": KEY/' cert.json
python3 - <<'END'
import base64, json
whole = json.load(open("cert.json"))
open("signed", "w").write(json.dumps(whole["certificate"], sort_keys=True, separators=(",", ":"), ensure_ascii=False))
open("signature", "wb").write(base64.b64decode(whole["signature"]["value"]))
END
t openssl pkeyutl -verify -rawin -pubin -inkey public.pem -in signed -sigfile signature
ls -A store/.cmekfs
t cmekctl status store
t cmekctl header dump --json store
t cmekctl shred --volume --yes-destroy db store
t cmekctl slot list store2
t cmekctl key uses local:a
# Cut off after the first copy: the volume is a shredded one already, and the next call ends it.
cp old-header store/.cmekfs/header.1
t cmekctl status store
t cmekctl shred --volume store
t cmekctl shred --volume --yes-destroy db store
cmp store/.cmekfs/header.0 store/.cmekfs/header.1
# The way back, where a key is left.
cmekctl -q key cancel-deletion local:b
cmekctl -q key enable local:b
t cmekctl header restore store backup
t cmekctl status store
