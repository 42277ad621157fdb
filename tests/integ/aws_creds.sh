#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Each place where AWS credentials may come from, against the emulator: who we are then, and a mount.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=../emulator/lib.sh
. "$HERE/../emulator/lib.sh"
need_cmekfs
need_root
need_fuse

emulator_start
aws_env
store=$SHM/store mnt=$T/mnt key=aws-kms://alias/db
mkdir -p "$mnt"
"$CTL" key create "$key" >/dev/null
"$MKFS" --key "$key" "$store" >/dev/null

opens() {
	start_daemon "$store" "$mnt"
	stop "$store" "$mnt"
}
# is WHO SOURCE: AWS takes us for this, by credentials from there; and they mount.
is() {
	expect_code 0 "$CTL" slot test "$key"
	expect_text "^identity +ok .*$1 \\($2\\)"
	opens
}
# forget NAME...: unsets variables; credentials that are set would come first.
forget() {
	unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN
	export AWS_EC2_METADATA_DISABLED=true
	printf '' >"$AWS_CONFIG_FILE"
	printf '' >"$AWS_SHARED_CREDENTIALS_FILE"
	chmod 600 "$AWS_CONFIG_FILE" "$AWS_SHARED_CREDENTIALS_FILE"
}
as_admin=(AWS_ACCESS_KEY_ID=AKIDADMIN AWS_SECRET_ACCESS_KEY=admin-secret)
role=arn:aws:iam::111122223333:role/mounter

say "the environment"
is user/admin "the environment"
env -u AWS_SECRET_ACCESS_KEY "$CTL" slot test "$key" >"$T/out" 2>&1 && fail "half of the credentials were taken"
expect_text "AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY"

say "nowhere"
forget
expect_code $EXPIRED "$CTL" slot test "$key"
expect_text "no AWS credentials" "profile 'default'"

say "the shared files"
printf '[default]\naws_access_key_id = AKIDADMIN\naws_secret_access_key=admin-secret\n' >"$AWS_SHARED_CREDENTIALS_FILE"
is user/admin "profile 'default' of the credentials file"
chmod 644 "$AWS_SHARED_CREDENTIALS_FILE"
expect_code 0 "$CTL" slot test "$key"
expect_text "$AWS_SHARED_CREDENTIALS_FILE: holds credentials, and others than its owner may read"
forget
cat >"$AWS_CONFIG_FILE" <<'CONF'
# a comment
[default]
region = us-east-1
[profile work]
aws_access_key_id = AKIDADMIN
aws_secret_access_key = admin-secret  # behind
[profile loop]
role_arn = arn:aws:iam::111122223333:role/mounter
source_profile = loop2
[profile loop2]
role_arn = arn:aws:iam::111122223333:role/mounter
source_profile = loop
[profile sso]
sso_session = corp
[profile mfa]
role_arn = arn:aws:iam::111122223333:role/mounter
source_profile = work
mfa_serial = arn:aws:iam::111122223333:mfa/me
[profile half]
role_arn = arn:aws:iam::111122223333:role/mounter
CONF
AWS_PROFILE=work is user/admin "profile 'work' of the config file"
AWS_PROFILE=none expect_code $USAGE "$CTL" slot test "$key"
expect_text "no AWS profile 'none'"
AWS_PROFILE=loop expect_code $USAGE "$CTL" slot test "$key"
expect_text "each other's source_profile"
AWS_PROFILE=sso expect_code $UNSUPPORTED "$CTL" slot test "$key"
expect_text "export-credentials --profile sso"
AWS_PROFILE=mfa expect_code $UNSUPPORTED "$CTL" slot test "$key"
expect_text "MFA"
AWS_PROFILE=half expect_code $USAGE "$CTL" slot test "$key"
expect_text "neither source_profile"
say "a profile that our configuration names comes before the environment"
printf '[aws]\nprofile = work\n' >"$CMEKFS_CONFIG"
AWS_ACCESS_KEY_ID=AKIDWRONG AWS_SECRET_ACCESS_KEY=x is user/admin "profile 'work' of the config file"
: >"$CMEKFS_CONFIG"

say "roles: assumed by a profile, in a chain, and with an external id"
emulate aws "{\"role\": \"$role\", \"external_id\": \"db 17\"}" >/dev/null
emulate aws "{\"role\": \"${role}2\", \"trust\": [\"arn:aws:sts::111122223333:assumed-role/mounter/one\"]}" >/dev/null
cat >>"$AWS_CONFIG_FILE" <<CONF
[profile role]
role_arn = $role
source_profile = work
external_id = db 17
role_session_name = one
[profile chain]
role_arn = ${role}2
source_profile = role
[profile wrong]
role_arn = $role
source_profile = work
external_id = db 18
[profile from-env]
role_arn = $role
credential_source = Environment
external_id = db 17
CONF
AWS_PROFILE=role is assumed-role/mounter/one "role $role"
AWS_PROFILE=chain is assumed-role/mounter2/cmekfs "role ${role}2"
AWS_PROFILE=wrong expect_code $DENIED "$CTL" slot test "$key"
expect_text "assuming the role $role: AWS STS, AssumeRole: AccessDenied" "not authorized to perform: sts:AssumeRole"
AWS_PROFILE=from-env expect_code $EXPIRED "$CTL" slot test "$key"
say "a role that is kept in the slot"
mkdir "$SHM/cross"
env "${as_admin[@]}" "$MKFS" --key "$key" --role "$role" --external-id "db 17" "$SHM/cross" >/dev/null
emulate log DELETE >/dev/null
(
	export "${as_admin[@]}"
	start_daemon "$SHM/cross" "$mnt"
	stop "$SHM/cross" "$mnt"
)
emulate log | grep -q 'assumed-role/mounter/cmekfs' || fail "the slot's role was not used"

say "credential_process"
cat >"$T/process" <<'PROCESS'
#!/bin/sh
[ "$1" = "two words" ] || { echo "what is '$1'?" >&2; exit 3; }
echo '{"Version": 1, "AccessKeyId": "AKIDADMIN", "SecretAccessKey": "admin-secret"}'
PROCESS
chmod 755 "$T/process"
forget
printf '[default]\ncredential_process = %s "two words"\n[profile bad]\ncredential_process = %s one\n' "$T/process" \
	"$T/process" >"$AWS_CONFIG_FILE"
is user/admin "credential_process $T/process"
AWS_PROFILE=bad expect_code $EXPIRED "$CTL" slot test "$key"
expect_text "ended with exit code 3: what is 'one'"

say "a web identity"
forget
printf 'a.web.token\n' >"$T/web-token"
chmod 600 "$T/web-token"
ln -s web-token "$T/web-link" # as Kubernetes does
emulate aws "{\"role\": \"${role}3\", \"web_token\": \"a.web.token\"}" >/dev/null
export AWS_WEB_IDENTITY_TOKEN_FILE=$T/web-link AWS_ROLE_ARN=${role}3 AWS_ROLE_SESSION_NAME=pod
is assumed-role/mounter3/pod "role ${role}3"
echo another >"$T/web-token"
expect_code $EXPIRED "$CTL" slot test "$key"
expect_text "InvalidIdentityToken"
unset AWS_WEB_IDENTITY_TOKEN_FILE AWS_ROLE_ARN AWS_ROLE_SESSION_NAME

say "a container"
emulate aws '{"instance_role": "task", "container_token": "container secret"}' >/dev/null
printf 'container secret\n' >"$T/container-token"
chmod 600 "$T/container-token"
export AWS_CONTAINER_CREDENTIALS_FULL_URI=$EMU_HTTP/container/creds
AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=$T/container-token is assumed-role/task/i-0123 "the container's role"
AWS_CONTAINER_AUTHORIZATION_TOKEN=wrong expect_code $DENIED "$CTL" slot test "$key"
AWS_CONTAINER_CREDENTIALS_FULL_URI=http://192.0.2.1/creds expect_code $USAGE "$CTL" slot test "$key"
expect_text "leads to no place for credentials"
unset AWS_CONTAINER_CREDENTIALS_FULL_URI

say "an instance"
export AWS_EC2_METADATA_DISABLED=false
is assumed-role/task/i-0123 "the instance's role task"
emulate aws '{"instance_role": null}' >/dev/null
expect_code $EXPIRED "$CTL" slot test "$key"
expect_text "metadata service: .*HTTP 404"
export AWS_EC2_METADATA_DISABLED=true

say "systemd's credentials"
mkdir -m 700 "$T/creds"
printf '[default]\naws_access_key_id = AKIDADMIN\naws_secret_access_key = admin-secret\n' >"$T/creds/aws-credentials"
chmod 400 "$T/creds/aws-credentials"
(
	unset AWS_SHARED_CREDENTIALS_FILE
	HOME=$T CREDENTIALS_DIRECTORY=$T/creds is user/admin "profile 'default' of the credentials file"
)

say "credentials that end: new ones are fetched"
forget
emulate aws '{"instance_role": "task"}' >/dev/null
export AWS_EC2_METADATA_DISABLED=false
fault '{"kind": "expired", "operation": "Decrypt", "count": 1}'
opens
no_faults

say "no secret is written anywhere"
if grep -rqE "admin-secret|container secret" "$store" "$T"/*.log "$CMEKFS_VOLUMES" "$EMU/log"; then
	fail "a secret was written"
fi
emulator_stop
