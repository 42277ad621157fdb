# shellcheck shell=bash
# SPDX-License-Identifier: GPL-3.0-or-later
# For integration tests: source it behind tests/integ/lib.sh.
#
#   emulator_start           serves from now on; $EMU_HTTP and $EMU_HTTPS are its addresses, $EMU its directory
#   emulator_stop
#   emulate PATH [JSON]      a request to its control interface
#   fault JSON, no_faults    shall go wrong from now on / nothing any more
#   aws_env                  what an AWS client needs to reach it as its administrator
#   gcp_env, ibm_env         the same for Google Cloud and IBM, by a configuration
#   kms_says LINE...         what [kms] in the configuration has from now on, in the place of what it had
#   asked OPERATION          how often since the log was emptied

# The exit codes of tools/tool.h.
# shellcheck disable=SC2034 # for the tests
USAGE=2 NOT_FOUND=3 EXISTS=4 BUSY=5 DENIED=10 EXPIRED=11 KEY_DISABLED=12 PENDING_DELETION=13 KEY_DESTROYED=14 UNREACHABLE=15 \
	THROTTLED=16 BAD_FORMAT=20 TAMPERED=21 MISMATCH=22 UNSUPPORTED=23 LIMIT=24

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
# Spoken here: to start Python for it, dozens of times in a test, is what tests would wait for.
emulate() {
	local LC_ALL=C method=POST text=${2:-} reply fd
	if [ $# -eq 1 ]; then method=GET; fi
	if [ "$text" = DELETE ]; then method=DELETE text=; fi
	exec {fd}<>"/dev/tcp/127.0.0.1/${EMU_HTTP##*:}"
	printf '%s /_control/%s HTTP/1.1\r\nHost: emulator\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' \
		"$method" "$1" "${#text}" "$text" >&"$fd"
	reply=$(cat <&"$fd")
	exec {fd}>&-
	[[ $reply == "HTTP/1.1 200 "* ]] || fail "the emulator does not take $*: $reply"
	printf '%s\n' "${reply#*$'\r\n\r\n'}"
}
fault() { emulate faults "$1" >/dev/null; }
no_faults() { emulate faults DELETE >/dev/null; }
asked() { emulate log | grep -o "\"operation\": \"$1\"" | wc -l; }
kms_says() {
	sed '/^\[kms\]$/d; /^attempts = /d; /^deadline = /d' "$CMEKFS_CONFIG" >"$T/conf.rest"
	{
		echo "[kms]"
		[ $# -eq 0 ] || printf '%s\n' "$@"
		cat "$T/conf.rest"
	} >"$CMEKFS_CONFIG"
}

aws_env() {
	local name
	for name in $(compgen -e AWS_ || true); do
		unset "$name"
	done
	kms_says "attempts = 5"
	export AWS_ENDPOINT_URL=$EMU_HTTP AWS_EC2_METADATA_SERVICE_ENDPOINT=$EMU_HTTP
	export AWS_ACCESS_KEY_ID=AKIDADMIN AWS_SECRET_ACCESS_KEY=admin-secret AWS_REGION=eu-central-1
	export AWS_CONFIG_FILE=$T/aws-config AWS_SHARED_CREDENTIALS_FILE=$T/aws-credentials
}

# No credentials of the machine's own are seen.
cloud_env() {
	export HOME=$T/home
	mkdir -p "$HOME"
	unset GOOGLE_APPLICATION_CREDENTIALS GOOGLE_CLOUD_QUOTA_PROJECT GCE_METADATA_HOST GCE_METADATA_IP CLOUDSDK_CONFIG
	unset CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS CREDENTIALS_DIRECTORY IBMCLOUD_API_KEY IBMCLOUD_IAM_API_ENDPOINT
	unset IBMCLOUD_KP_ENDPOINT IBMCLOUD_KP_API_ENDPOINT
	kms_says "attempts = 5"
}
gcp_env() {
	cloud_env
	printf '[gcp]\nendpoint = %s\niam_endpoint = %s\nmetadata_endpoint = %s\ncredentials_file = %s\n' \
		"$EMU_HTTP" "$EMU_HTTP" "$EMU_HTTP" "$T/gcp-sa.json" >>"$CMEKFS_CONFIG"
	/usr/bin/python3 - "$T/gcp-sa.json" "$EMU_HTTP" >"$T/gcp-account" <<-'END'
		import json, os, sys
		from cryptography.hazmat.primitives import serialization as s
		from cryptography.hazmat.primitives.asymmetric import rsa
		key, email = rsa.generate_private_key(65537, 2048), "admin@p1.iam.gserviceaccount.com"
		pem = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()).decode()
		with open(sys.argv[1], "w", opener=lambda p, f: os.open(p, f, 0o600)) as f:
		    json.dump({"type": "service_account", "client_email": email, "private_key": pem, "private_key_id": "k1",
		               "token_uri": sys.argv[2] + "/gcp/token"}, f)
		public = key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo).decode()
		print(json.dumps({"account": email, "public_key": public}))
	END
	emulate gcp "$(cat "$T/gcp-account")" >/dev/null
}
ibm_env() {
	cloud_env
	printf '[ibm]\nendpoint = %s\niam_endpoint = %s\nmetadata_endpoint = %s\n' "$EMU_HTTP" "$EMU_HTTP" "$EMU_HTTP" >>"$CMEKFS_CONFIG"
	export IBMCLOUD_API_KEY=ibm-admin-key
}
