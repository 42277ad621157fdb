# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# Names that no mount has made.
touch "$store/foreign"
mkdir "$(dirname "$(stored 500000)")/..foreign"
