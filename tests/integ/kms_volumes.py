# SPDX-License-Identifier: GPL-3.0-or-later
"""
Volumes with keys in all kinds of key services, for tests that change those (watch_kms.py): each has a key, credentials and a
line to the emulator of its own, so that many can be changed at the same time.
"""
import glob
import http.client
import json
import os
import socket
import subprocess
import threading
import time
import urllib.parse
import uuid

LATE_S = 120  # whatever takes so long does not come
PATIENT_S, IMPATIENT_S = 10, 1  # how long a question may take; where nothing comes back the test waits for that
SETTINGS = {"interval": "200ms", "retry": "200ms", "grace": "1s"}
STATES = ("throttled", "unreachable", "expired", "denied", "disabled", "pending-deletion", "destroyed")


class Trouble(Exception):
    pass


def wait_until(what, condition):
    until = time.monotonic() + LATE_S
    while not condition():
        if time.monotonic() > until:
            raise Trouble(f"not within {LATE_S} s: {what}")
        time.sleep(0.01)


class Emulator:
    def __init__(self, base):
        self.base = base

    def order(self, path, body=None, method="POST"):
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.base).netloc, timeout=LATE_S)
        connection.request(method, "/_control/" + path, body=None if body is None else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status != 200:
            raise Trouble(f"the emulator does not take {path} {body}: {text}")
        return json.loads(text)


class Kms:
    """
    A kind of key service. make() gives a volume its key (.key: as mkfs takes it; .key_id: as the emulator calls it),
    environment and configuration; what is done to a key is a method, and "un" before its name takes it back.
    """

    name = None

    def __init__(self, site):
        self.site = site

    def ctl(self, volume, *words):
        self.site.run([self.site.ctl, "key", words[0], *words[1:], volume.key], volume.admin)

    def disable(self, v):
        self.ctl(v, "disable")

    def undisable(self, v):
        self.ctl(v, "enable")

    def schedule(self, v):
        self.ctl(v, "schedule-deletion")

    def unschedule(self, v):
        self.ctl(v, "cancel-deletion")
        self.ctl(v, "enable")

    def rotate(self, v):
        self.ctl(v, "rotate")

    def fault(self, v, **fault):
        self.site.emulator.order("faults", {"service": self.name, "key": v.key_id, **fault})

    def no_faults(self, v):
        self.site.emulator.order("faults?key=" + urllib.parse.quote(v.key_id), method="DELETE")

    def control(self, **order):
        return self.site.emulator.order(self.name, order)

    # What may happen to any cloud.

    def throttle(self, v):
        self.fault(v, kind="throttle")

    def fail(self, v):
        self.fault(v, kind="internal")

    def garble(self, v):
        self.fault(v, kind="garbage")

    def slow(self, v):
        self.fault(v, kind="latency", seconds=20 * IMPATIENT_S)

    def delay(self, v):
        self.fault(v, kind="latency", seconds=0.2)

    def expire(self, v):
        self.fault(v, kind="expired")

    unthrottle = unfail = ungarble = unslow = undelay = unexpire = no_faults

    def refuse(self, v):
        self.site.emulator.order("line", {"port": v.port, "mode": "refuse"})

    def hole(self, v):
        self.site.emulator.order("line", {"port": v.port, "mode": "hole"})

    def unrefuse(self, v):
        self.site.emulator.order("line", {"port": v.port, "mode": "pass"})

    unhole = unrefuse

    def configure(self, v, more=""):
        v.port = self.site.emulator.order("line", {})["port"]
        v.endpoint = f"http://127.0.0.1:{v.port}"
        v.config_text = f"[kms]\nattempts = 1\ndeadline = {v.deadline_s}s\n" + more.replace("@", v.endpoint)
        v.admin_text = more.replace("@", self.site.emulator.base)


class Local(Kms):
    name = "local"

    def make(self, v):
        keys = f"{v.dir}/keys"
        os.mkdir(keys, 0o700)
        v.env["CMEKFS_LOCAL_KEYSTORE"] = v.admin["CMEKFS_LOCAL_KEYSTORE"] = keys + "/keys.json"
        v.key = v.key_id = "local:" + v.name
        v.config_text = v.admin_text = ""

    def create(self, v):
        self.ctl(v, "create")

    def destroy(self, v):
        self.ctl(v, "schedule-deletion", "--days", "0")

    def away(self, v):
        os.rename(v.env["CMEKFS_LOCAL_KEYSTORE"], v.dir + "/away")

    def unaway(self, v):
        os.rename(v.dir + "/away", v.env["CMEKFS_LOCAL_KEYSTORE"])


class Aws(Kms):
    name = "aws"

    def make(self, v):
        self.configure(v, "[aws]\nendpoint = @\n")
        v.admin.update(AWS_ACCESS_KEY_ID="AKIDADMIN", AWS_SECRET_ACCESS_KEY="admin-secret", AWS_REGION="eu-central-1")
        v.env.update(AWS_ACCESS_KEY_ID="ASIA" + v.name.upper(), AWS_SECRET_ACCESS_KEY="secret", AWS_REGION="eu-central-1",
                     AWS_SESSION_TOKEN="token")
        v.key = "aws-kms://alias/" + v.name

    def create(self, v):
        self.ctl(v, "create")
        # By its ARN from now on: operations that manage keys take no alias.
        said = self.site.run([self.site.ctl, "key", "describe", "--json", v.key], v.admin)
        v.key = json.loads(said)["key"]
        v.key_id = v.key.rsplit("/", 1)[-1]
        self.user(v)

    def user(self, v, **more):
        self.control(user=v.name, access_key="ASIA" + v.name.upper(), secret="secret", token="token", **more)

    def may(self, *actions):
        return [{"actions": ["kms:" + action for action in actions]}]

    def deny(self, v):
        self.user(v, allow=[])

    def deny_describe(self, v):
        self.user(v, allow=self.may("Decrypt"))

    def deny_unwrap(self, v):
        self.user(v, allow=self.may("DescribeKey", "ListKeyRotations"))

    def expire(self, v):
        self.user(v, expires=1)

    def undeny(self, v):
        self.user(v)

    undeny_describe = undeny_unwrap = unexpire = undeny

    def destroy(self, v):
        self.control(destroy_now=v.key)


class Gcp(Kms):
    name = "gcp"

    def __init__(self, site):
        super().__init__(site)
        from cryptography.hazmat.primitives import serialization as s
        from cryptography.hazmat.primitives.asymmetric import rsa
        key = rsa.generate_private_key(65537, 2048)  # of all accounts
        self.private = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()).decode()
        self.public = key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo).decode()

    def account(self, v, name, endpoint):
        email, path = f"{name}-{v.name}@p1.iam.gserviceaccount.com", f"{v.dir}/{name}.json"
        with open(path, "w", opener=lambda p, f: os.open(p, f, 0o600)) as f:
            json.dump({"type": "service_account", "client_email": email, "private_key": self.private, "private_key_id": "k1",
                       "token_uri": endpoint + "/gcp/token"}, f)
        self.control(account=email, public_key=self.public)
        return email, path

    def make(self, v):
        text = "[gcp]\nendpoint = @\niam_endpoint = @\nmetadata_endpoint = @\n"
        self.configure(v, text)
        v.email, path = self.account(v, "mount", v.endpoint)
        v.config_text += f"credentials_file = {path}\n"
        _, path = self.account(v, "admin", self.site.emulator.base)
        v.admin_text += f"credentials_file = {path}\n"
        v.key_id = "projects/p1/locations/europe-west3/keyRings/r1/cryptoKeys/" + v.name
        v.key = "gcp-kms://" + v.key_id

    def create(self, v):
        self.ctl(v, "create")

    def grant(self, v, *permissions):
        self.control(grant=v.email, permissions=["cloudkms." + p for p in permissions])

    def deny(self, v):
        self.grant(v)

    def deny_describe(self, v):
        self.grant(v, "cryptoKeyVersions.useToDecrypt")

    def deny_unwrap(self, v):
        self.grant(v, "cryptoKeys.get", "cryptoKeyVersions.get", "cryptoKeyVersions.list")

    def undeny(self, v):
        self.control(grant=v.email, permissions=None)

    undeny_describe = undeny_unwrap = undeny

    def destroy(self, v):
        self.schedule(v)
        self.control(destroy_now=v.key_id)


class Ibm(Kms):
    name = "ibm"

    def make(self, v):
        self.configure(v, "[ibm]\nendpoint = @\niam_endpoint = @\nmetadata_endpoint = @\n")
        v.who = "iam-ServiceId-" + v.name
        v.env["IBMCLOUD_API_KEY"] = "key-" + v.name
        v.admin["IBMCLOUD_API_KEY"] = "ibm-admin-key"
        self.control(api_key="key-" + v.name, who=v.who)

    def create(self, v):
        v.key = self.control(key={"instance": str(uuid.uuid4()), "account": "0123456789abcdef", "region": "eu-de"})["crn"]
        v.key_id = v.key.rsplit(":", 1)[-1]

    # The service wants half a minute between two changes of a key's state.

    def undisable(self, v):
        self.control(change=v.key, state=1)

    def unschedule(self, v):
        self.control(change=v.key, state=1, deleted=None)

    def deny(self, v):
        self.control(roles=v.who, are=[])

    def undeny(self, v):
        self.control(roles=v.who, are=None)

    # No role does one of the two alone.

    def deny_describe(self, v):
        self.fault(v, kind="code", status=403, operation="metadata", message="Forbidden")

    def deny_unwrap(self, v):
        self.fault(v, kind="code", status=403, operation="unwrap", message="Forbidden")

    def undeny_describe(self, v):
        self.no_faults(v)

    undeny_unwrap = undeny_describe

    def destroy(self, v):
        self.control(change=v.key, state=5, deleted=int(time.time()) - 100 * 86400)  # purged: not found any more


class Site:
    """What all volumes share."""

    def __init__(self, directory, memory, cmekfs, mkfs, ctl):
        self.dir, self.memory, self.cmekfs, self.mkfs, self.ctl = directory, memory, cmekfs, mkfs, ctl
        self.emulator = Emulator(os.environ["EMULATOR_BASE"])
        self.lock = threading.Lock()
        self.count = 0
        os.mkdir(f"{self.dir}/s")  # sockets: their paths must be short
        self.kms = {kind.name: kind(self) for kind in (Local, Aws, Gcp, Ibm)}

    def run(self, argv, env):
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LATE_S)
        if done.returncode != 0:
            raise Trouble(f"{argv}: exit code {done.returncode}: {done.stderr}")
        return done.stdout

    def next_name(self, kind):
        with self.lock:
            self.count += 1
            return f"{kind}{self.count}"


class Volume:
    """A volume with a key of its own, mounted, with a file that stays open."""

    def __init__(self, site, kind, deadline_s=PATIENT_S, beside=None):
        self.site, self.kms = site, site.kms[kind]
        self.name, self.deadline_s = site.next_name(kind), deadline_s
        self.dir = f"{site.dir}/{self.name}"
        self.store, self.mnt = f"{site.memory}/{self.name}", f"{self.dir}/mnt"
        for directory in (self.dir, self.store, self.mnt):
            os.mkdir(directory)
        base = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "GOOGLE_", "IBM"))}
        base.update(HOME=self.dir, CMEKFS_RUNTIME_DIR=f"{site.dir}/s/{self.name}", CMEKFS_VOLUMES=f"{self.dir}/volumes.json",
                    CMEKFS_AUDIT_LOG=f"{self.dir}/audit.log", AWS_EC2_METADATA_DISABLED="true")
        self.env, self.admin = dict(base), dict(base)
        self.env["CMEKFS_CONFIG"], self.admin["CMEKFS_CONFIG"] = f"{self.dir}/conf", f"{self.dir}/admin.conf"
        self.kms.make(self)
        for path, text in (("conf", self.config_text), ("admin.conf", self.admin_text)):
            with open(f"{self.dir}/{path}", "w") as f:
                f.write(text)
        self.kms.create(self)
        keys = ["--key", self.key]
        if beside:
            keys += ["--key", beside]
            for env in (self.env, self.admin):
                env["CMEKFS_LOCAL_KEYSTORE"] = f"{self.dir}/beside.json"
            site.run([site.ctl, "key", "create", beside], self.admin)
        site.run([site.mkfs, *keys, self.store], self.env)
        self.process = self.file = None
        self.written = 0

    def mount(self):
        options = ",".join(f"watch_{name}={value}" for name, value in SETTINGS.items())
        self.log = open(f"{self.dir}.mount.log", "a")
        self.process = subprocess.Popen([self.site.cmekfs, self.store, self.mnt, "-f", "-o", options], env=self.env,
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

        def is_there():
            if self.process.poll() is not None:
                raise Trouble(f"{self.name}: the mount failed: {open(self.log.name).read()}")
            return self.is_mounted()
        wait_until(f"{self.name} is mounted", is_there)
        self.socket_path = glob.glob(self.env["CMEKFS_RUNTIME_DIR"] + "/*.sock")[0]
        self.open()

    def open(self):
        self.file = os.open(f"{self.mnt}/file", os.O_RDWR | os.O_CREAT, 0o600)

    def unmount(self):
        self.errno_of(os.close, self.file)  # it may be locked
        for _ in range(100):
            if subprocess.run(["umount", self.mnt], stderr=subprocess.DEVNULL, check=False).returncode == 0:
                break
            time.sleep(0.1)
        self.ended()

    def ended(self):
        """It ends, as it should; what it said is kept."""
        if self.process.wait(LATE_S) != 0:
            raise Trouble(f"{self.name}: exit code {self.process.returncode}: {open(self.log.name).read()[-2000:]}")
        self.log.close()
        self.process = None

    def is_mounted(self):
        with open("/proc/self/mountinfo") as f:
            return any(line.split()[4] == self.mnt for line in f)

    def ask(self, cmd, **parameters):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(LATE_S)
            s.connect(self.socket_path)
            s.sendall(json.dumps({"v": 1, "cmd": cmd, **parameters}).encode() + b"\n")
            with s.makefile() as lines:
                answer = json.loads(lines.readline())
        if not answer["ok"]:
            raise Trouble(f"{self.name}: {cmd}: {answer['error']['text']}")
        return answer["result"]

    def watch(self):
        return self.ask("status")["watch"]

    def slot_states(self):
        return [slot["state"] for slot in self.watch()["slots"]]  # none before it has asked

    def set_policy(self, **settings):
        self.ask("watch", settings={**SETTINGS, **{f"on_{s.replace('-', '_')}": "ignore" for s in STATES}, **settings})

    # What users see.

    def errno_of(self, operation, *arguments):
        try:
            operation(*arguments)
        except OSError as error:
            return error.errno
        return 0

    def sees(self):
        """0, or the errno of a look at it."""
        return self.errno_of(os.stat, f"{self.mnt}/file")

    def write(self):
        """One record more, which is acknowledged."""
        self.written += 1
        os.pwrite(self.file, b"%07d\n" % self.written, 8 * (self.written - 1))
        os.fsync(self.file)

    def check(self):
        """All that was acknowledged is there, by the file that stayed open and by a new one."""
        want = b"".join(b"%07d\n" % i for i in range(1, self.written + 1))
        with open(f"{self.mnt}/file", "rb") as f:
            for got in (os.pread(self.file, len(want) + 1, 0), f.read()):
                if got != want:
                    raise Trouble(f"{self.name}: {len(got)} bytes are there, not the {len(want)} that were written")

    def trouble(self):
        """What is known of it, for who has to find out."""
        try:
            lines = [json.dumps(self.watch())]
        except Exception as error:  # pylint: disable=broad-except
            lines = [repr(error)]
        with open(f"{self.dir}.mount.log") as f:
            lines += f.read().splitlines()[-20:]
        return "\n    ".join(lines)
