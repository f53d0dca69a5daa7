"""Checks of environments, clusters and data assets."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ppe_yolo.azure.lint.references import check_address
from ppe_yolo.azure.lint.requirements import check_requirements
from ppe_yolo.azure.lint.vm_sizes import supports_vm_size
from ppe_yolo.azure.yaml.assets import Asset
from ppe_yolo.azure.yaml.document import Document, Mistake, UnreadableError, read_document
from ppe_yolo.azure.yaml.interface import PATH_TYPES

_TIERS = ("dedicated", "low_priority", "lowpriority")


def check_environment(document: Document) -> list[Mistake]:
    """Checks that there is either an image or a build, and that the conda file or Dockerfile exists."""
    value, mistakes = document.value, []
    conda, build = value.get("conda_file"), value.get("build")
    if value.get("version") is None:
        what = "expected version: without it Azure assigns a new one each time, which no component can refer to"
        mistakes.append(document.mistake("missing-version", what))
    if (value.get("image") is None) == (build is None):
        got = "neither" if build is None else "both"
        mistakes.append(document.mistake("missing-key", f"expected either image or build, got {got}"))
    if isinstance(conda, str):
        path = document.path.parent / conda
        if not path.is_file():
            return [*mistakes, document.mistake("missing-file", f"conda_file: no such file {conda}", "conda_file")]
        try:
            conda_document = read_document(path)
        except UnreadableError as error:
            return [*mistakes, error.mistake]
        content = conda_document.value
        if not isinstance(content, Mapping) or not isinstance(content.get("dependencies"), list):
            mistakes.append(document.mistake("missing-file", f"conda_file: {conda} has no dependencies", "conda_file"))
        else:
            mistakes += check_requirements(conda_document) + _check_content_version(document, path)
    if isinstance(build, Mapping) and build.get("path") is not None:
        dockerfile = document.path.parent / str(build["path"]) / str(build.get("dockerfile_path", "Dockerfile"))
        if not dockerfile.is_file():
            mistakes.append(document.mistake("missing-file", f"build: no such file {dockerfile}", "build", "path"))
    return mistakes


def _check_content_version(document: Document, conda: Path) -> list[Mistake]:
    """Checks a version that is named after the content: Azure does not build an existing version again."""
    version = str(document.value.get("version"))
    if not re.fullmatch(r"[0-9a-f]{12}", version):
        return []
    expected = hashlib.sha256(f"{document.value.get('image')}\n".encode() + conda.read_bytes()).hexdigest()[:12]
    if version == expected:
        return []
    what = f"version: expected {expected}, the hash of image and {conda.name}, here and in the components, got {version}"
    return [document.mistake("outdated-version", what, "version")]


def check_compute(document: Document) -> list[Mistake]:
    """Checks the VM size, the numbers of nodes and the tier."""
    value, mistakes = document.value, []
    if str(value.get("type")).lower() != "amlcompute":
        mistakes.append(document.mistake("unknown-type", f"type: expected amlcompute, got {value.get('type')!r}", "type"))
    least, most = value.get("min_instances", 0), value.get("max_instances", 1)
    for key, number in (("min_instances", least), ("max_instances", most)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            mistakes.append(document.mistake("wrong-count", f"{key}: expected 0 or more, got {number!r}", key))
    if not mistakes and least > most:
        what = f"min_instances: expected at most max_instances, {most}, got {least}"
        mistakes.append(document.mistake("wrong-count", what, "min_instances"))
    if not mistakes and most == 0:
        mistakes.append(document.mistake("wrong-count", "max_instances: expected 1 or more, got 0", "max_instances"))
    idle = value.get("idle_time_before_scale_down")
    if idle is not None and (isinstance(idle, bool) or not isinstance(idle, int) or idle < 0):
        what = f"idle_time_before_scale_down: expected seconds, 0 or more, got {idle!r}"
        mistakes.append(document.mistake("wrong-value", what, "idle_time_before_scale_down"))
    size = value.get("size")
    if size is not None and not supports_vm_size(str(size)):
        what = f"size: expected a VM size of a series that Azure ML supports, such as Standard_D4ds_v4, got {size}"
        mistakes.append(document.mistake("unsupported-size", what, "size"))
    tier = value.get("tier")
    if tier is not None and str(tier).lower() not in _TIERS:
        mistakes.append(document.mistake("unknown-type", f"tier: expected dedicated or low_priority, got {tier!r}", "tier"))
    return mistakes


def check_data(document: Document, assets: Sequence[Asset]) -> list[Mistake]:
    """Checks the type and an address in the path. A local path may be on another machine, so it is not checked."""
    kind = document.value.get("type")
    if kind in PATH_TYPES or kind is None:
        return check_address(document, document.value.get("path"), assets, "path")
    return [document.mistake("unknown-type", f"type: expected one of {', '.join(PATH_TYPES[:3])}, got {kind!r}", "type")]
