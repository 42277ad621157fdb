#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""
Compares an audit log with what the key services have logged themselves (the emulator's log, on standard input): each of
their requests is in one event, and no event has one that they don't know.

    audit_requests.py AUDIT_LOG SECRET...    none of the secrets is in the log
"""
import collections
import json
import sys

OPERATIONS = {"wrap", "unwrap", "rewrap", "describe", "create", "rotate", "enable", "disable", "schedule-deletion",
              "force-deletion", "cancel-deletion", "identity", "list", "registrations"}
# Not of the service but of this machine.
LEFT_OUT = {"Metadata", "Container"}


def requests_of(event):
    """What one event tells of requests, which has to fit together."""
    for name in ("key", "operation", "provider", "duration_ms", "program", "outcome"):
        if name not in event:
            sys.exit(f"no {name}: {event}")
    if event["operation"] not in OPERATIONS or event["duration_ms"] < 0 or "requests_left_out" in event:
        sys.exit(f"odd: {event}")
    if event["operation"] in ("wrap", "unwrap", "rewrap") and not ("volume" in event and "version" in event):
        if event["outcome"] == "success":
            sys.exit(f"of what: {event}")
    requests = event.get("requests", [])
    if requests and requests[-1].get("request_id") != event.get("request_id"):
        sys.exit(f"not the last one: {event}")
    if not requests and event["provider"] != "local" and event["outcome"] == "success":
        sys.exit(f"answered by nobody: {event}")
    for request in requests:
        yield event["provider"], request["status"], request.get("request_id")


def main():
    with open(sys.argv[1]) as f:
        text = f.read()
    for secret in sys.argv[2:]:
        if secret in text:
            sys.exit(f"a secret is in the log: {secret}")
    calls = [event for event in map(json.loads, text.splitlines()) if event["event"] == "kms.call"]
    told = collections.Counter(request for event in calls for request in requests_of(event))
    served = collections.Counter((entry["service"], entry["status"], entry["request_id"]) for entry in json.load(sys.stdin)
                                 if entry["operation"] not in LEFT_OUT)
    if told != served:
        sys.exit(f"only in the audit log: {told - served}; only of the services: {served - told}")
    if {service for service, _, _ in served} != {"aws", "gcp", "ibm"} or "local" not in {c["provider"] for c in calls}:
        sys.exit(f"not all have been asked: {served}")


main()
