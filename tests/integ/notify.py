#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service manager's socket: notify.py SOCKET FILE appends each message to FILE, its lines joined by a blank."""
import os
import socket
import sys

sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.bind(sys.argv[1])
with open(sys.argv[2], "a", buffering=1, encoding="utf-8") as out:
    os.set_inheritable(sock.fileno(), False)
    while True:
        out.write(sock.recv(4096).decode().replace("\n", " ") + "\n")
