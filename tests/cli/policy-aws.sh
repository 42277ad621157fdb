# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=sh
# The least that AWS must allow: no network is needed to tell.
key=arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab
t cmekctl key policy $key
t cmekctl key policy --create --member arn:aws:iam::444455556666:role/db --volume 6ba7b810-9dad-11d1-80b4-00c04fd430c8 $key
t cmekctl key policy --role arn:aws:iam::111122223333:role/mounter --external-id 17 aws-kms://alias/db
t cmekctl key policy --member 'x; y' $key
