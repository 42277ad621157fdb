# SPDX-License-Identifier: GPL-3.0-or-later
# shellcheck shell=bash disable=SC2154,SC2034
# An entry was moved to another directory in the store.
mv "$(stored 5000)" "$(dirname "$(stored 9)")/"
