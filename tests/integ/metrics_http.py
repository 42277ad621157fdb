#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cmekctl metrics --listen answers.

metrics_http.py get URL   prints the metrics
metrics_http.py odd URL   requests of all kinds
metrics_http.py slow URL  says "waiting" once it has sent half a request, and succeeds when it is hung up on
metrics_http.py crowd URL more connections that say nothing than there is room for, and one that asks until it is heard
"""
import http.client
import socket
import sys
import time
import urllib.parse

TIMEOUT = 120
METRICS = "text/plain; version=0.0.4; charset=utf-8"
HOST = b"Host: x\r\n"
CLIENTS_MAX = 64

# What is sent, and the status that comes back.
ODD = [
    (b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    (b"GET /metrics?x=1 HTTP/1.0\n\n", 200),
    (b"HEAD /metrics HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    (b"GET /metrics/ HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    (b"GET /../metrics HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    (b"HEAD /no HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    (b"POST /metrics HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc", 405),
    (b"GET /metrics HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc", 200),
    (b"DELETE / HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
    (b"GET /metrics\r\n", 400),
    (b"GET / HTTP/3.0\r\n\r\n", 505),
]

# The server reads no more of these, so that the reason may be lost when it hangs up.
TOO_LONG = [
    (b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    (b"GET / HTTP/1.1\r\n" + HOST + b"A: bcd\r\n" * 4000, 431),
]


def connect(url):
    where = urllib.parse.urlsplit(url)
    return socket.create_connection((where.hostname, where.port), timeout=TIMEOUT)


def receive(sock):
    """(status, headers, body), up to the end of the connection."""
    data = b""
    while piece := sock.recv(65536):
        data += piece
    if not data:
        raise ConnectionResetError("no answer")
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("ascii").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    assert lines[0].startswith("HTTP/1.1 "), lines[0]
    assert len(headers) == len(lines) - 1 and headers["connection"] == "close", lines
    return int(lines[0].split(" ")[1]), headers, body


def ask(url, request):
    with connect(url) as sock:
        sock.sendall(request)
        return receive(sock)


def get(url):
    where = urllib.parse.urlsplit(url)
    http_connection = http.client.HTTPConnection(where.hostname, where.port, timeout=TIMEOUT)
    http_connection.request("GET", where.path)
    response = http_connection.getresponse()
    body = response.read()
    assert response.status == 200 and response.getheader("Content-Type") == METRICS, response.getheaders()
    assert int(response.getheader("Content-Length")) == len(body)
    sys.stdout.buffer.write(body)


def odd(url):
    for request, want in ODD:
        status, headers, body = ask(url, request)
        assert status == want, (request[:80], status)
        assert (headers.get("allow") == "get, head") == (status == 405), (request[:80], headers)
        assert int(headers["content-length"]) > 0
        if request.startswith(b"HEAD"):
            assert body == b"", request
        elif status in (200, 404, 405):  # the others are the library's
            assert len(body) == int(headers["content-length"]), (request[:80], headers)
    # In pieces, as slow as the server reads them.
    with connect(url) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in ODD[0][0]:
            sock.send(bytes([byte]))
        assert receive(sock)[0] == 200
    # Who has sent its request may be through with sending.
    with connect(url) as sock:
        sock.sendall(ODD[0][0])
        sock.shutdown(socket.SHUT_WR)
        assert receive(sock)[0] == 200
    for request, want in TOO_LONG:
        try:
            status, _, _ = ask(url, request)
        except ConnectionError:
            continue
        assert status == want, (request[:80], status)
    with connect(url) as sock:
        sock.sendall(b"\x16\x03\x01\x00\xf0\x01\r\n\r\n")
        assert sock.recv(100)[:1] in (b"", b"H")


def slow(url):
    with connect(url) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost:")
        print("waiting", flush=True)
        assert sock.recv(100) == b""


def crowd(url):
    idle = [connect(url) for _ in range(CLIENTS_MAX + 8)]
    until = time.monotonic() + TIMEOUT
    status = None
    while status is None:
        try:
            status = ask(url, ODD[0][0])[0]
        except ConnectionError:
            assert time.monotonic() < until, "there is never room again"
            time.sleep(0.1)
    assert status == 200
    for sock in idle:
        sock.close()


{"get": get, "odd": odd, "slow": slow, "crowd": crowd}[sys.argv[1]](sys.argv[2])
