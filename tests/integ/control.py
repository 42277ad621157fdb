#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Speaks to a control socket: control.py SOCKET LINE... sends each as a line and prints what comes back, until the end."""
import socket
import sys

with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
    sock.settimeout(60)
    sock.connect(sys.argv[1])
    try:
        sock.sendall("".join(line + "\n" for line in sys.argv[2:]).encode())
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # refused before it was read: there is an answer all the same
    with sock.makefile() as answers:
        try:
            for answer in answers:
                print(answer, end="", flush=True)
        except ConnectionResetError:
            pass  # closed with something of ours unread, after the answer
