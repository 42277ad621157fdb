#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The key watch against every kind of key service: what happens to a key or to who asks for it, what the policy makes of
# it, and after what time. With CMEK_LONG=1 each change under each policy, and 10,000 changes that must leak nothing.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=../emulator/lib.sh
. "$HERE/../emulator/lib.sh"
need_cmekfs
need_root
need_fuse

emulator_start
EMULATOR_BASE=$EMU_HTTP CMEK_LONG=$LONG $PYTHON "$HERE/watch_kms.py" "$T" "$SHM" "$CMEKFS" "$MKFS" "$CTL"
emulator_stop
