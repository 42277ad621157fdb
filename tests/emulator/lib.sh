# shellcheck shell=bash
# SPDX-License-Identifier: GPL-3.0-or-later
# For integration tests: source it behind tests/integ/lib.sh.
#
#   emulator_start           serves from now on; $EMU_HTTP and $EMU_HTTPS are its addresses, $EMU its directory
#   emulator_stop
#   emulate PATH [JSON]      a request to its control interface
#   fault JSON, no_faults    shall go wrong from now on / nothing any more
#   aws_env                  what an AWS client needs to reach it as its administrator

EMULATOR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/emulator.py

emulator_start() {
	/usr/bin/python3 -c 'import botocore, cryptography' 2>/dev/null || skip "python3-botocore is not installed"
	EMU=$T/emulator
	mkdir -p "$EMU"
	/usr/bin/python3 "$EMULATOR" serve "$EMU" >"$EMU/log" 2>&1 &
	emulator_pid=$!
	wait_for 60 test -e "$EMU/ready" || fail "the emulator does not start: $(cat "$EMU/log")"
	EMU_HTTP=$(sed -n 's/^http=//p' "$EMU/ready")
	# shellcheck disable=SC2034 # for the tests
	EMU_HTTPS=$(sed -n 's/^https=//p' "$EMU/ready")
}
emulator_stop() {
	kill "$emulator_pid"
	wait "$emulator_pid" 2>/dev/null || true
}
emulate() { /usr/bin/python3 "$EMULATOR" ctl "$EMU" "$@"; }
fault() { emulate faults "$1" >/dev/null; }
no_faults() { emulate faults DELETE >/dev/null; }

aws_env() {
	local name
	for name in $(compgen -e AWS_ || true); do
		unset "$name"
	done
	export AWS_ENDPOINT_URL=$EMU_HTTP AWS_EC2_METADATA_SERVICE_ENDPOINT=$EMU_HTTP
	export AWS_ACCESS_KEY_ID=AKIDADMIN AWS_SECRET_ACCESS_KEY=admin-secret AWS_REGION=eu-central-1
	export AWS_CONFIG_FILE=$T/aws-config AWS_SHARED_CREDENTIALS_FILE=$T/aws-credentials
}
