# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# What is said when something is wrong, and the exit code.
t cmekctl key list local:
t cmekctl key describe local:db
t cmekctl key create local:.db
t cmekctl key create local:
t cmekctl key create db
t cmekctl key create arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab
gcp=gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k
sa=sa@p.iam.gserviceaccount.com
t cmekctl key create "$gcp"/cryptoKeyVersions/1
t cmekctl key describe 2fe79d14-7f5d-4bae-b0e6-4a5c5b1a8d7b
t cmekctl key policy --volume x "$gcp"
t cmekctl key policy "$gcp"
t cmekctl key policy --create --member me@p.iam.gserviceaccount.com "$gcp"
t cmekctl key policy --service-account $sa --member "x; y" "$gcp"
t cmekctl key policy --service-account $sa --volume 2fe79d14-7f5d-4bae-b0e6-4a5c5b1a8d7b "$gcp"
t cmekctl key registrations "$gcp"
t cmekctl key create crn:v1:bluemix:public:kms:us-south:a/0123:abcd:key:ef01
t cmekctl key create local:db
t cmekctl key create local:db
t cmekctl key create --passphrase local:db2
t cmekctl key describe local:db2
t cmekctl key schedule-deletion --days 31 local:db
t cmekctl key schedule-deletion --days x local:db

chmod 644 keys.json.key
t cmekctl key describe local:db
chmod 600 keys.json.key
chmod 640 keys.json
t cmekctl key describe local:db
chmod 600 keys.json

cp keys.json good.json
sed -i 's/"enabled"/"disabled"/' keys.json
t cmekctl key describe local:db
head -c 100 good.json >keys.json
t cmekctl key describe local:db
sed 's/"version": 1,/"version": 2,/' good.json >keys.json
t cmekctl key describe local:db
sed 's/"state": "enabled"/"state": "on"/' good.json >keys.json
t cmekctl key describe local:db
cp good.json keys.json

mv keys.json.key away
t cmekctl key describe local:db
t cmekctl key create local:more
head -c 32 /dev/zero >keys.json.key
chmod 600 keys.json.key
t cmekctl key describe local:db
head -c 31 /dev/zero >keys.json.key
t cmekctl key describe local:db
mv away keys.json.key
t cmekctl key describe -q local:db

# shellcheck disable=SC2016
t sh -c 'cmekctl key list local: >/dev/full'
