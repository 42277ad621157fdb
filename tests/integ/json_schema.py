#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""
Validates what a test has collected, all in one go.

    json_schema.py results SCHEMA      lines "FILE DEFINITION" on standard input: the file's JSON is what the definition of
                                       the schema says, and is none without any one of its required members
    json_schema.py manifests SCHEMA    lines "PLACE MANIFEST": PLACE "good", or anything else for a manifest that is none
"""
import json
import sys

import jsonschema


def results(schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    anything = jsonschema.Draft202012Validator(schema)
    for line in sys.stdin:
        path, definition = line.rstrip("\n").split(" ", 1)
        try:
            with open(path) as file:
                value = json.load(file)
        except ValueError as e:
            sys.exit(f"{path} ({definition}): {e}")
        one = jsonschema.Draft202012Validator({"$schema": schema["$schema"], "$defs": schema["$defs"],
                                               "$ref": "#/$defs/" + definition.replace(" ", "%20")})
        errors = [f"{path}: {error.json_path}: {error.message}" for error in one.iter_errors(value)]
        if errors:
            sys.exit("\n".join(errors))
        if not anything.is_valid(value):
            sys.exit(f"{path}: is no result of any command")
        for member in schema["$defs"][definition]["required"]:
            if one.is_valid({name: value[name] for name in value if name != member}):
                sys.exit(f"{path}: good without {member}")


def manifests(schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    manifest = jsonschema.Draft202012Validator(schema)
    for line in sys.stdin:
        place, text = line.split(" ", 1)
        if manifest.is_valid(json.loads(text)) != (place == "good"):
            sys.exit(f"{place}, but not by the schema: {text}")


def main():
    with open(sys.argv[2]) as file:
        schema = json.load(file)
    {"results": results, "manifests": manifests}[sys.argv[1]](schema)


main()
