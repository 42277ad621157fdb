#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""
The key services that cmekfs talks to, on loopback, for tests: real cryptography, key states, credentials and metadata
endpoints, and faults on command. tests/emulator/README.md tells how tests use it.

    emulator.py serve DIR     serves until it is told to end; DIR/ready has the addresses once it listens
    emulator.py ctl DIR PATH [JSON]
                              a request to the control interface of the one that serves DIR; prints the answer

This file is the frame: sockets, TLS, faults, the clock, the log. A service is a class in a module of its own, listed in
SERVICES, and knows nothing of sockets.
"""
import datetime
import email.utils
import http.client
import http.server
import importlib
import ipaddress
import json
import os
import random
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
import urllib.parse

# Modules with a class Service, asked in this order whether a request is theirs.
SERVICES = ["aws", "gcp", "ibm"]
BODY_MAX = 1 << 20
REQUEST_IDS = ("x-amzn-requestid", "correlation-id")  # Google Cloud gives none


class Request:
    """A request as a service sees it; header names are in lower case."""

    def __init__(self, method, target, headers, body):
        url = urllib.parse.urlsplit(target)
        self.method = method
        self.target = urllib.parse.urlunsplit(("", "", url.path, url.query, ""))  # a proxy is asked by whole URLs
        self.path = urllib.parse.unquote(url.path)
        self.raw_path = url.path
        self.query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        self.headers = headers
        self.body = body
        self.service = None  # whose it is, what it asks for, and of which key: for faults and the log
        self.operation = None
        self.key = None

    def json(self):
        return json.loads(self.body or b"{}")

    def form(self):
        return dict(urllib.parse.parse_qsl(self.body.decode(), keep_blank_values=True))


class Answer:
    """body: bytes, or anything else for JSON."""

    def __init__(self, status, body=b"", headers=None, content_type="application/json"):
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {"Content-Type": content_type, **(headers or {})}


class Faults:
    """
    What goes wrong, as ordered: {"kind", "service", "operation", "key", "count", ...}. service, operation and key choose
    requests (absent = any), count is how often (absent = until cleared), "after" how many such requests go well before.
    The frame knows the kinds latency (seconds), reset, close, drip (seconds between bytes), huge (bytes), garbage, status
    (status, body, headers); others are the service's own: it asks take().
    """

    FRAME = {"latency", "reset", "close", "drip", "huge", "garbage", "status"}

    def __init__(self):
        self.faults = []
        self.lock = threading.Lock()

    def add(self, fault):
        with self.lock:
            self.faults.append(dict(fault))

    def clear(self, key=None):
        """All, or those of one key."""
        with self.lock:
            self.faults = [fault for fault in self.faults if key is not None and fault.get("key") != key]

    def take(self, request, *kinds):
        """The first fault of these kinds that is meant for the request, counted down; None if there is none."""
        with self.lock:
            for fault in self.faults:
                if fault["kind"] not in kinds:
                    continue
                if fault.get("service", request.service) != request.service:
                    continue
                if fault.get("operation", request.operation) != request.operation:
                    continue
                if fault.get("key", request.key) != request.key:
                    continue
                if fault.get("after", 0) > 0:
                    fault["after"] -= 1
                    continue
                if "count" in fault:
                    fault["count"] -= 1
                    if fault["count"] <= 0:
                        self.faults.remove(fault)
                return fault
        return None


class Asked:
    """
    How often each key was asked about, and by how many requests at once. One is under way until its answer is made, so that
    who asks again when it has it is not taken for two. (Who gives up and asks again is.)
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.counts = {}  # key -> {"asked", "now", "most"}

    def begin(self, key):
        """For end()."""
        with self.lock:
            count = self.counts.setdefault(key, {"asked": 0, "now": 0, "most": 0})
            count["asked"] += 1
            count["now"] += 1
            count["most"] = max(count["most"], count["now"])
            return count

    def end(self, count):
        with self.lock:
            count["now"] -= 1

    def show(self):
        with self.lock:
            return {key: dict(count) for key, count in self.counts.items() if key is not None}

    def forget(self, key):
        with self.lock:
            self.counts.pop(key, None)


class Emulator:
    """What services share."""

    def __init__(self):
        self.lock = threading.RLock()  # held while a service handles a request
        self.faults = Faults()
        self.offset = 0
        self.log = []
        self.asked = Asked()
        self.lines = {}  # port -> Line, beside the two that everybody has
        self.base = None  # http://127.0.0.1:PORT
        self.services = [importlib.import_module(name).Service(self) for name in SERVICES]

    def now(self):
        """Unix seconds by the emulator's clock, which control can move."""
        return time.time() + self.offset

    def find(self, request):
        """The service a request is for; names it and the operation in the request."""
        for service in self.services:
            operation = service.operation_of(request)
            if operation is not None:
                request.service, request.operation = service.name, operation
                request.key = service.key_of(request)
                return service
        return None

    def handle(self, request, service):
        with self.lock:
            answer = service.handle(request)
            ids = [value for name, value in answer.headers.items() if name.lower() in REQUEST_IDS]
            self.log.append({"service": request.service, "operation": request.operation, "status": answer.status,
                             "who": getattr(request, "who", None), "request_id": ids[0] if ids else None})
        return answer

    def control(self, request):
        """
        POST /_control/faults FAULT; DELETE there (?key=KEY: that key's); POST clock {"offset"}; GET log; DELETE log; GET asked
        (DELETE asked?key=KEY forgets); POST line {} (answers {"port"}) or {"port", "mode"}; POST SERVICE {...}.
        """
        what = request.path[len("/_control/"):]
        if what == "faults" and request.method == "POST":
            self.faults.add(request.json())
        elif what == "faults" and request.method == "DELETE":
            self.faults.clear(request.query.get("key"))
        elif what == "asked" and request.method == "DELETE":
            self.asked.forget(request.query["key"])
        elif what == "asked":
            return Answer(200, self.asked.show())
        elif what == "line":
            return Answer(200, {"port": self.line(request.json())})
        elif what == "clock":
            self.offset = request.json()["offset"]
        elif what == "log" and request.method == "GET":
            with self.lock:
                return Answer(200, self.log)
        elif what == "log" and request.method == "DELETE":
            with self.lock:
                self.log.clear()
        else:
            for service in self.services:
                if service.name == what:
                    with self.lock:
                        return Answer(200, service.control(request.json()))
            return Answer(404, {"error": "no such control"})
        return Answer(200, {})

    def line(self, order):
        """A new port of its own for somebody whose network is to be cut, or what becomes of one; its number."""
        if "port" in order:
            self.lines[order["port"]].set_mode(order["mode"])
            return order["port"]
        line = Line(self)
        self.lines[line.port] = line
        return line.port


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "emulator"
    timeout = 60
    disable_nagle_algorithm = True  # headers and body are written apart

    def log_message(self, *args):
        pass

    def date_time_string(self, timestamp=None):
        now = self.server.emulator.now() if timestamp is None else timestamp
        return email.utils.formatdate(now, usegmt=True)

    def read_request(self):
        length = int(self.headers.get("Content-Length") or 0)
        if length > BODY_MAX:
            raise ValueError("a large body")
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(self.command, self.path, headers, self.rfile.read(length))

    def answer(self):
        emulator = self.server.emulator
        try:
            request = self.read_request()
            if not self.server.passes.is_set():
                # The asker waits, and has gone when the line is there again.
                self.server.passes.wait()
                self.close_connection = True
                return
            if request.path.startswith("/_control/"):
                self.send(emulator.control(request))
                return
            service = emulator.find(request)
            if service is None:
                self.send(Answer(404, {"error": "nobody serves this"}))
                return
            self.serve(request, service)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True
        except Exception:
            traceback.print_exc()
            self.send(Answer(500, {"error": "the emulator failed"}))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def serve(self, request, service):
        emulator, answer = self.server.emulator, None
        count = emulator.asked.begin(request.key)
        try:
            fault = emulator.faults.take(request, *Faults.FRAME - {"drip", "huge", "garbage"})
            if fault is not None and fault["kind"] == "latency":
                time.sleep(fault["seconds"])
                fault = None
            if fault is None:
                answer = emulator.handle(request, service)
        finally:
            emulator.asked.end(count)
        if answer is None:
            self.fail(fault)
        else:
            self.spoil(emulator.faults.take(request, "drip", "huge", "garbage"), answer)

    def fail(self, fault):
        """What happens in the place of an answer."""
        if fault["kind"] == "status":
            self.send(Answer(fault["status"], fault.get("body", "").encode(), fault.get("headers")))
            return
        if fault["kind"] == "reset":  # RST instead of FIN
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def spoil(self, fault, answer):
        """Sends the answer, or what a fault makes of it."""
        if fault is None:
            self.send(answer)
        elif fault["kind"] == "drip":
            self.begin(answer, len(answer.body))
            for byte in answer.body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(fault["seconds"])
        elif fault["kind"] == "huge":
            self.begin(answer, fault["bytes"])
            left = fault["bytes"]
            while left > 0:
                self.wfile.write(b" " * min(left, 65536))
                left -= 65536
        else:
            answer.body = random.choice([b"{", b"\xff\xfe\x00garbage", b"[]", b"{\"a\": 1} trailing", b"<html>"])
            self.send(answer)

    def begin(self, answer, length):
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def send(self, answer):
        self.begin(answer, len(answer.body))
        self.wfile.write(answer.body)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, emulator, context=None, port=0):
        super().__init__(("127.0.0.1", port), Handler)
        self.emulator = emulator
        self.context = context
        self.passes = threading.Event()  # else requests are read and never answered
        self.passes.set()
        self.connected = set()
        self.connected_lock = threading.Lock()

    def begin(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def get_request(self):
        connection, address = super().get_request()
        if self.context:
            # The handshake is the handler's, in its thread: do_handshake_on_connect would hold up everybody.
            connection = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self.connected_lock:
            self.connected.add(connection)
        return connection, address

    def shutdown_request(self, request):
        with self.connected_lock:
            self.connected.discard(request)
        super().shutdown_request(request)

    def hang_up(self):
        with self.connected_lock:
            for connection in self.connected:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it has gone by itself

    def handle_error(self, request, client_address):
        pass


class Line:
    """
    A port whose network can be cut: "refuse" (nobody listens there, who was connected is not any more), "hole" (it is listened
    to, and nothing comes back), "pass".
    """

    def __init__(self, emulator):
        self.emulator = emulator
        # Keeps the port while nobody listens: two may be bound to it, as neither listens then.
        self.keeper = socket.socket()
        self.keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.keeper.bind(("127.0.0.1", 0))
        self.port = self.keeper.getsockname()[1]
        self.server = None
        self.set_mode("pass")

    def set_mode(self, mode):
        if self.server is not None and mode == "refuse":
            self.server.shutdown()
            self.server.server_close()
            self.server.hang_up()
            self.server = None
        elif self.server is None and mode != "refuse":
            self.server = Server(self.emulator, port=self.port)
            self.server.begin()
        if mode == "hole":
            self.server.passes.clear()
        elif mode == "pass":
            self.server.passes.set()
        elif mode != "refuse":
            raise ValueError("no such mode")


def make_certificates(directory):
    """A CA in ca.pem and a certificate for 127.0.0.1 and localhost by it in server.pem; other-ca.pem did not sign it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def name(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    def make(subject, issuer, key, signer, extensions):
        now = datetime.datetime.utcnow()
        builder = (x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer))
                   .public_key(key.public_key()).serial_number(x509.random_serial_number())
                   .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=2)))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(signer, hashes.SHA256())

    def pem(*things):
        text = b""
        for thing in things:
            if hasattr(thing, "private_bytes"):
                text += thing.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                            serialization.NoEncryption())
            else:
                text += thing.public_bytes(serialization.Encoding.PEM)
        return text

    ca_key, other_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    is_ca = [(x509.BasicConstraints(ca=True, path_length=None), True)]
    ca = make("emulator CA", "emulator CA", ca_key, ca_key, is_ca)
    other = make("other CA", "other CA", other_key, other_key, is_ca)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"),
                                         x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = make("127.0.0.1", "emulator CA", key, ca_key, [(names, False)])
    for file, text in (("ca.pem", pem(ca)), ("other-ca.pem", pem(other)), ("server.pem", pem(key, certificate))):
        with open(os.path.join(directory, file), "wb", opener=lambda p, f: os.open(p, f, 0o600)) as f:
            f.write(text)


def serve(directory):
    os.makedirs(directory, exist_ok=True)
    make_certificates(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(directory, "server.pem"))
    emulator = Emulator()
    plain, tls = Server(emulator), Server(emulator, context)
    emulator.base = f"http://127.0.0.1:{plain.server_address[1]}"
    for server in (plain, tls):
        server.begin()
    ready = os.path.join(directory, "ready")
    with open(ready + ".new", "w") as f:
        f.write(f"http={emulator.base}\nhttps=https://127.0.0.1:{tls.server_address[1]}\npid={os.getpid()}\n")
    os.rename(ready + ".new", ready)
    threading.Event().wait()


def ctl(directory, path, text=None):
    with open(os.path.join(directory, "ready")) as f:
        base = dict(line.strip().split("=", 1) for line in f)["http"]
    method = "POST"
    if text is None or text == "DELETE":
        method, text = ("GET" if text is None else "DELETE"), None
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(base).netloc, timeout=60)
    connection.request(method, "/_control/" + path, body=text)
    answer = connection.getresponse()
    print(answer.read().decode())
    return 0 if answer.status == 200 else 1


def main():
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    if len(sys.argv) == 3 and sys.argv[1] == "serve":
        serve(sys.argv[2])
    elif len(sys.argv) in (4, 5) and sys.argv[1] == "ctl":
        return ctl(*sys.argv[2:])
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
