"""Fills deployment.template.json with the environment's values, in the form that IoT Edge wants.

    MODULE_IMAGE=... MODULE_VERSION=... python edge/fill_manifest.py edge/deployment.template.json --out deployment.json

Needs Python alone, since an agent has nothing else. `--keep NAME` leaves a placeholder for a later, second filling: so no
secret is in what is published in between. Exit code 2 and one line for a value that is missing.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

PLACEHOLDER = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
TWIN_STRING = 4096  # bytes of the longest string that a twin may hold


class ManifestError(Exception):
    """A mistake of the user, in one line."""


def fill(node: Any, values: Mapping[str, str], keep: Collection[str] = ()) -> Any:
    """Puts values in the place of `${NAME}` in every string below a node; names in `keep` stay as they are.

    Values are put into parsed JSON, so none can break out of its string. `$upstream`, `$edgeHub` are no placeholders.

    Raises:
        ManifestError: A value is missing or empty.
    """
    if isinstance(node, dict):
        return {key: fill(value, values, keep) for key, value in node.items()}
    if isinstance(node, list):
        return [fill(value, values, keep) for value in node]
    if not isinstance(node, str):
        return node

    def value_of(found: re.Match[str]) -> str:
        name = found[1]
        if name in keep:
            return found[0]
        if not values.get(name):
            raise ManifestError(f"{name}: expected a value in the environment, got none: set it, or give --keep {name}")
        return values[name]

    return PLACEHOLDER.sub(value_of, node)


def with_options_as_text(node: Any) -> Any:
    """Turns every `createOptions` object into JSON text, as Docker's options stand in a twin.

    Raises:
        ManifestError: The text is longer than a twin can hold.
    """
    if isinstance(node, list):
        return [with_options_as_text(value) for value in node]
    if not isinstance(node, dict):
        return node
    made = {key: with_options_as_text(value) for key, value in node.items()}
    if "createOptions" in node:
        options = node["createOptions"]
        # text already, where a manifest is filled for the second time
        text = options if isinstance(options, str) else json.dumps(options, separators=(",", ":"))
        made["createOptions"] = text
        if len(text) > TWIN_STRING:  # pure ASCII, so that characters are bytes
            raise ManifestError(f"createOptions of {node.get('image')}: expected at most {TWIN_STRING} bytes, got {len(text)}")
    return made


def main() -> None:
    """Reads the template, writes the manifest."""
    parser = argparse.ArgumentParser(description="Fills an IoT Edge manifest with the environment's values.")
    parser.add_argument("template", type=Path)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--keep", action="append", default=[], metavar="NAME", help="leave this placeholder as it is")
    arguments = parser.parse_args()
    try:
        manifest = with_options_as_text(fill(json.loads(arguments.template.read_text("utf-8")), os.environ, arguments.keep))
        arguments.out.write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    except (ManifestError, OSError, ValueError) as error:
        print(f"fill_manifest: error: {arguments.template}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
