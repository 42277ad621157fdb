#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# The emulator under the clouds' own clients, which are fetched with npm: if they wrap and unwrap with it as they are, then
# it speaks as the services do. 77 = no node, or the clients can't be fetched.
#
#   tests/emulator/check_sdks.sh [DIR]    DIR keeps the clients for the next time
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${1:-$(mktemp -d)}
mkdir -p "$dir"
for program in node npm; do
	command -v "$program" >/dev/null || {
		echo "skipped: $program is not installed"
		exit 77
	}
done
cp "$here/check_sdks.mjs" "$here/package.json" "$dir/"
if ! (cd "$dir" && timeout 180 npm install --no-audit --no-fund --ignore-scripts --no-package-lock) >"$dir/npm.log" 2>&1; then
	tail -n 5 "$dir/npm.log"
	echo "skipped: npm can't fetch the clients"
	exit 77
fi
rm -rf "$dir/emulator"
/usr/bin/python3 "$here/emulator.py" serve "$dir/emulator" >"$dir/emulator.log" 2>&1 &
emulator=$!
trap 'kill $emulator 2>/dev/null; [ $# -gt 0 ] || rm -rf "$dir"' EXIT
for ((i = 0; i < 600; i++)); do
	[ -e "$dir/emulator/ready" ] && break
	kill -0 $emulator || { cat "$dir/emulator.log"; exit 1; }
	sleep 0.1
done
url=$(sed -n 's/^http=//p' "$dir/emulator/ready")
cd "$dir" && node check_sdks.mjs "$url"
