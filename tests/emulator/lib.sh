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

# No credentials of the machine's own are seen.
cloud_env() {
	export HOME=$T/home
	mkdir -p "$HOME"
	unset GOOGLE_APPLICATION_CREDENTIALS GOOGLE_CLOUD_QUOTA_PROJECT GCE_METADATA_HOST GCE_METADATA_IP CLOUDSDK_CONFIG
	unset CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS CREDENTIALS_DIRECTORY IBMCLOUD_API_KEY IBMCLOUD_IAM_API_ENDPOINT
	unset IBMCLOUD_KP_ENDPOINT IBMCLOUD_KP_API_ENDPOINT
	grep -qs '^\[kms\]' "$CMEKFS_CONFIG" || printf '[kms]\nattempts = 5\n' >>"$CMEKFS_CONFIG"
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
