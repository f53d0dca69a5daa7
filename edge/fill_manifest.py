"""Fills deployment.template.json with values from the environment, in the form that IoT Edge expects.

    MODULE_IMAGE=... MODULE_VERSION=... python edge/fill_manifest.py edge/deployment.template.json --out deployment.json

`--accelerator cuda` and `--accelerator openvino` give the module ppeEdge the devices and memory that such an image needs. cuda
requires NVIDIA's container toolkit; openvino requires RENDER_GROUP, the number of the group that owns /dev/dri/renderD128.

Needs only Python, because a build agent may have nothing else. `--keep NAME` leaves a placeholder for a second run, so that
the manifest that is published in between contains no secret. A missing value is one line and exit code 2.
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
MODULE = "ppeEdge"
# What is added to the HostConfig and to the environment of the module. CUDA's libraries need 1 to 2 GiB of memory.
ACCELERATORS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "cpu": ({}, {}),
    "cuda": (
        {
            "DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}],
            "Memory": 4 * 1024**3,
        },
        {"NVIDIA_DRIVER_CAPABILITIES": "compute,utility"},
    ),
    "openvino": (
        {
            "Devices": [{"PathOnHost": "/dev/dri", "PathInContainer": "/dev/dri", "CgroupPermissions": "rw"}],
            "GroupAdd": ["${RENDER_GROUP}"],
            "Memory": 4 * 1024**3,
        },
        {},
    ),
}


class ManifestError(Exception):
    """A user error, in one line."""


def fill(node: Any, values: Mapping[str, str], keep: Collection[str] = ()) -> Any:
    """Replaces `${NAME}` by its value in every string below a node; names in `keep` are left alone.

    Values are inserted into parsed JSON, so that none can break out of its string. `$upstream` and `$edgeHub` are not
    placeholders.

    Raises:
        ManifestError: A value is missing or empty.
    """
    if isinstance(node, dict):
        return {key: fill(value, values, keep) for key, value in node.items()}
    if isinstance(node, list):
        return [fill(value, values, keep) for value in node]
    if not isinstance(node, str):
        return node

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if name in keep:
            return match[0]
        if not values.get(name):
            raise ManifestError(f"{name}: expected a value in the environment, got none: set it, or pass --keep {name}")
        return values[name]

    return PLACEHOLDER.sub(value_of, node)


def with_accelerator(manifest: Any, accelerator: str) -> Any:
    """Adds what an accelerator needs to the module.

    Raises:
        ManifestError: The manifest has no such module, or its `createOptions` are already text.
    """
    host, variables = ACCELERATORS[accelerator]
    if not host:
        return manifest
    try:
        module = manifest["modulesContent"]["$edgeAgent"]["properties.desired"]["modules"][MODULE]
        module["settings"]["createOptions"]["HostConfig"].update(host)
    except (KeyError, TypeError) as error:
        raise ManifestError(
            f"--accelerator {accelerator}: expected a template with createOptions of {MODULE}, got one without {error}"
        ) from error
    module.setdefault("env", {}).update({name: {"value": value} for name, value in variables.items()})
    return manifest


def with_second_module(manifest: Any, name: str, port: int) -> Any:
    """Adds a module with the same image, its own folders /etc/NAME and /var/lib/NAME, and its page at another port.

    It serves another class list, such as persons: the model is named in /etc/NAME/edge.yaml.

    Raises:
        ManifestError: The name or port is not allowed, or the manifest is no template.
    """
    agent = manifest["modulesContent"]["$edgeAgent"]["properties.desired"]
    if not re.fullmatch(r"[a-z][A-Za-z0-9]{0,31}", name) or name in agent["modules"] or not 1024 <= port <= 65535:
        raise ManifestError(f"--second {name}:{port}: expected a new name of letters and digits, and a port from 1024 to 65535")
    module = json.loads(json.dumps(agent["modules"][MODULE]))
    options = module["settings"]["createOptions"]
    if isinstance(options, str):
        raise ManifestError(f"--second {name}: expected a template, got a filled manifest")
    host = options["HostConfig"]
    host["Binds"] = [f"/etc/{name}:/etc/ppe_edge:ro", f"/var/lib/{name}:/var/lib/ppe_edge"]
    host["PortBindings"] = {key: [{**b, "HostPort": str(port)} for b in value] for key, value in host["PortBindings"].items()}
    agent["modules"][name] = module
    routes = manifest["modulesContent"]["$edgeHub"]["properties.desired"]["routes"]
    routes[name] = {**routes["alerts"], "route": routes["alerts"]["route"].replace(MODULE, name)}
    return manifest


def with_options_as_text(node: Any) -> Any:
    """Converts every `createOptions` object to JSON text, the form that a twin requires.

    Raises:
        ManifestError: The text is longer than a twin allows.
    """
    if isinstance(node, list):
        return [with_options_as_text(value) for value in node]
    if not isinstance(node, dict):
        return node
    converted = {key: with_options_as_text(value) for key, value in node.items()}
    if "createOptions" in node:
        options = node["createOptions"]
        # already text if the manifest is filled for the second time
        text = options if isinstance(options, str) else json.dumps(options, separators=(",", ":"))
        converted["createOptions"] = text
        if len(text) > TWIN_STRING:  # pure ASCII: one byte per character
            raise ManifestError(f"createOptions of {node.get('image')}: expected at most {TWIN_STRING} bytes, got {len(text)}")
    return converted


def main() -> None:
    """Reads the template and writes the manifest."""
    parser = argparse.ArgumentParser(description="Fills an IoT Edge manifest with values from the environment.")
    parser.add_argument("template", type=Path, help="the manifest with placeholders")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the manifest to write")
    parser.add_argument("--keep", action="append", default=[], metavar="NAME", help="leave this placeholder in the manifest")
    parser.add_argument("--accelerator", choices=ACCELERATORS, default="cpu", help="what the image runs the model on")
    parser.add_argument("--second", metavar="NAME:PORT", help="add a module with the same image, such as ppePerson:8081")
    arguments = parser.parse_args()
    try:
        template = with_accelerator(json.loads(arguments.template.read_text("utf-8")), arguments.accelerator)
        if arguments.second is not None:
            name, _, port = arguments.second.partition(":")
            template = with_second_module(template, name, int(port) if port.isdecimal() else 0)
        manifest = with_options_as_text(fill(template, os.environ, arguments.keep))
        arguments.out.write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    except (ManifestError, OSError, ValueError) as error:
        print(f"fill_manifest: error: {arguments.template}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
