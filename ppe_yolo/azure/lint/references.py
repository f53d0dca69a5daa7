"""Checks of references to assets (azureml:NAME:VERSION) and of addresses (azureml://...)."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

from ppe_yolo.azure.lint.settings import ASSET_NAME
from ppe_yolo.azure.yaml.assets import Asset
from ppe_yolo.azure.yaml.document import Document, Mistake
from ppe_yolo.azure.yaml.pipeline import ASSET

_UNVERSIONED = ("compute", "datastore")
_ADDRESS = re.compile(
    r"azureml://(datastores/(?P<datastore>\w+)/paths/|jobs/[^/]+/outputs/[\w-]+(/paths/|$)|(subscriptions|registries|locations)/).*"
)


def check_reference(document: Document, given: Any, kind: str, assets: Sequence[Asset], *keys: str | int) -> list[Mistake]:
    """Checks that a reference such as azureml:NAME:VERSION has a version, and that a file of the folder declares it."""
    if not isinstance(given, str):
        return []
    if not given.startswith(ASSET):
        expected = {"compute": "azureml:NAME or serverless", "environment": "azureml:NAME:VERSION"}.get(kind)
        if expected is None or (kind == "compute" and given in ("serverless", "local")):
            return []
        return [document.mistake("unknown-reference", f"{kind}: expected {expected}, got {given!r}", *keys)]
    rest = given.removeprefix(ASSET)
    if "/" in rest:  # a registry or a datastore
        return []
    if "@" in rest:
        if rest.endswith("@latest"):
            return []
        return [document.mistake("unknown-reference", f"{given}: expected the label latest", *keys)]
    name, _, version = rest.partition(":")
    if kind in _UNVERSIONED and version:
        return [document.mistake("unknown-reference", f"{given}: expected {ASSET}{name}: a {kind} has no versions", *keys)]
    if kind not in _UNVERSIONED and not version:
        return [document.mistake("missing-version", f"{given}: expected {ASSET}{name}:VERSION or {ASSET}{name}@latest", *keys)]
    if not ASSET_NAME.fullmatch(name):
        return [document.mistake("illegal-name", f"{given}: expected a name of letters, digits, - and _, got {name!r}", *keys)]
    names = sorted({a.name for a in assets if a.kind == kind})
    near = difflib.get_close_matches(name, names, n=1)
    if name not in names and names and (kind == "compute" or near):
        hint = f": did you mean {near[0]}?" if near else f"; declared: {', '.join(names)}"
        return [document.mistake("unknown-reference", f"{given}: no file declares this {kind}{hint}", *keys)]
    versions = [a for a in assets if a.kind == kind and a.name == name]
    # new versions of data are created without a file, so an undeclared version may exist
    if kind == "environment" and versions and version not in {a.version for a in versions}:
        known = ", ".join(f"{a.version} ({a.document.path.name})" for a in versions)
        return [document.mistake("unknown-reference", f"{given}: the files declare version {known}", *keys)]
    return []


def check_address(document: Document, path: Any, assets: Sequence[Asset], *keys: str | int) -> list[Mistake]:
    """Checks the address of data in a datastore or an earlier job; other paths are not checked."""
    if not isinstance(path, str) or not path.startswith("azureml://"):
        return []
    match = _ADDRESS.fullmatch(path)
    if match is None:
        what = f"path: expected azureml://datastores/NAME/paths/PATH or azureml://jobs/JOB/outputs/NAME/paths/, got {path}"
        return [document.mistake("unknown-reference", what, *keys)]
    datastore = match["datastore"]
    return check_reference(document, datastore and f"{ASSET}{datastore}", "datastore", assets, *keys)
