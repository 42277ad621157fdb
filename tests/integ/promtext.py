#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks Prometheus text (exposition format 0.0.4) on standard input more strictly than Prometheus reads it.

promtext.py                   complains, or succeeds
promtext.py NAME [L=VALUE]... also prints the value of the one sample with this name and (at least) these labels
"""
import math
import re
import sys

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"'
SAMPLE = re.compile(rf"({NAME})\{{({LABEL}(?:,{LABEL})*)\}} (\S+)\Z")
SUFFIXES = {
    "counter": [""],
    "gauge": [""],
    "histogram": ["_bucket", "_sum", "_count"],
    "summary": ["_sum", "_count"],
}
UNITS = ("milliseconds", "microseconds", "ms", "minutes", "kilobytes", "kb", "mb", "percent")


class Bad(Exception):
    """The text is not as it should be."""


def unescape(text):
    return re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], text)


def check_name(name, kind):
    if not name.startswith("cmekfs_") or name.lower() != name:
        raise Bad(f"{name}: not named as ours are")
    if (kind == "counter") != name.endswith("_total"):
        raise Bad(f"{name}: counters end in _total, and nothing else does")
    if name.endswith(("_bucket", "_sum", "_count")) or set(name.split("_")) & set(UNITS):
        raise Bad(f"{name}: a name that means something else, or no base unit")


def parse(text):
    """[(family, kind, name, labels, value)]"""
    if not text.endswith("\n"):
        raise Bad("the last line has no end")
    samples, families, helped = [], {}, None
    family = None
    seen = set()
    for line in text.split("\n")[:-1]:
        if m := re.match(rf"# HELP ({NAME}) (\S.*)\Z", line):
            if m[1] in families or not m[2].endswith("."):
                raise Bad(f"{line}: comes twice, or is no sentence")
            helped = m[1]
            continue
        if m := re.match(rf"# TYPE ({NAME}) (\w+)\Z", line):
            if m[1] != helped or m[2] not in SUFFIXES:
                raise Bad(f"{line}: not after its HELP, or no type")
            family = m[1]
            families[family] = m[2]
            check_name(family, m[2])
            continue
        m = SAMPLE.match(line)
        if not m or family is None or m[1] not in [family + s for s in SUFFIXES[families[family]]]:
            raise Bad(f"{line!r}: no sample, or not below its TYPE")
        pairs = re.findall(LABEL, m[2])
        labels = {name: unescape(value) for name, value in pairs}
        value = float(m[m.lastindex])
        key = (m[1], tuple(sorted(labels.items())))
        if len(labels) != len(pairs) or key in seen:
            raise Bad(f"{line}: a label or a sample comes twice")
        seen.add(key)
        # Of a mount that does not answer its place may not be known.
        if not labels.get("volume") or (not labels.get("mountpoint") and (m[1] != "cmekfs_up" or value != 0)):
            raise Bad(f"{line}: whose?")
        if math.isnan(value) or value < 0:
            raise Bad(f"{line}: less than nothing")
        samples.append((family, families[family], m[1], labels, value))
    return samples


def check_histograms(samples):
    buckets, counts, sums = {}, {}, set()
    for family, kind, name, labels, value in samples:
        if kind != "histogram":
            continue
        key = (family, tuple(sorted(i for i in labels.items() if i[0] != "le")))
        if name.endswith("_bucket"):
            buckets.setdefault(key, []).append((float(labels["le"]), value))
        elif name.endswith("_count"):
            counts[key] = value
        else:
            sums.add(key)
    if buckets.keys() != counts.keys() or sums != counts.keys():
        raise Bad("a histogram lacks a part")
    for key, rows in buckets.items():
        if rows != sorted(rows) or [v for _, v in rows] != sorted(v for _, v in rows):
            raise Bad(f"{key}: buckets out of order, or not cumulative")
        if rows[-1] != (math.inf, counts[key]):
            raise Bad(f"{key}: the last bucket is not the count")


def check_states(samples):
    """Of the states that exclude each other exactly one is."""
    sets = {}
    for family, _, _, labels, value in samples:
        if "state" in labels:
            key = (family, tuple(sorted(i for i in labels.items() if i[0] != "state")))
            sets.setdefault(key, []).append(value)
    for key, values in sets.items():
        if sorted(values) != [0] * (len(values) - 1) + [1]:
            raise Bad(f"{key}: not in one state")


def main():
    try:
        samples = parse(sys.stdin.read())
        check_histograms(samples)
        check_states(samples)
        if len(sys.argv) > 1:
            want = dict(a.split("=", 1) for a in sys.argv[2:])
            found = [s[4] for s in samples if s[2] == sys.argv[1] and want.items() <= s[3].items()]
            if len(found) != 1:
                raise Bad(f"{sys.argv[1:]}: there are {len(found)} samples")
            print(f"{found[0]:.15g}")
    except Bad as e:
        sys.exit(f"promtext.py: {e}")


main()
