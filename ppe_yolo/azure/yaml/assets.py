"""What the YAML files of a folder declare: data, environments and clusters, by name and version."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppe_yolo.azure.yaml.document import Document, UnreadableError, read_document
from ppe_yolo.core.errors import UserError

SCHEMAS = "azuremlschemas.azureedge.net"
# the last part of `$schema`, without what all have in common
KINDS = {
    "pipelineJob": "pipeline",
    "commandComponent": "component",
    "parallelComponent": "component",
    "environment": "environment",
    "amlCompute": "compute",
    "data": "data",
    "schedule": "schedule",
    "commandJob": "command",
}


@dataclass(frozen=True)
class Asset:
    """Something declared in a file that others refer to as `azureml:NAME:VERSION`, a cluster as `azureml:NAME`."""

    kind: str
    name: str
    version: str | None
    document: Document


def kind_of(value: Any) -> str | None:
    """What a file is by its `$schema`; None for one that is not Azure ML's, "" for one of a kind that is not known here."""
    schema = value.get("$schema") if isinstance(value, Mapping) else None
    if not isinstance(schema, str) or SCHEMAS not in schema:
        return None
    return KINDS.get(schema.rpartition("/")[2].removesuffix(".schema.json"), "")


def yaml_files(folder: Path) -> list[Path]:
    """Every YAML file below a folder."""
    return sorted(p for p in folder.rglob("*") if p.suffix in (".yml", ".yaml") and p.is_file())


def declared(folder: Path) -> Iterator[Asset]:
    """Every asset that a file below a folder declares; a file that cannot be read declares none."""
    for path in yaml_files(folder):
        try:
            document = read_document(path)
        except UnreadableError:
            continue
        kind = kind_of(document.value)
        if kind in ("environment", "compute", "data") and "name" in document.value:
            version = document.value.get("version")
            yield Asset(kind, str(document.value["name"]), None if version is None else str(version), document)


def find_data(folder: Path, reference: str) -> Path:
    """The folder on this machine that `azureml:NAME:VERSION` is made of.

    Raises:
        UserError: No file here declares it, or it is not made of a local folder.
    """
    name, _, version = reference.removeprefix("azureml:").partition("@" if "@" in reference else ":")
    found = [a for a in declared(folder) if a.kind == "data" and a.name == name and ("@" in reference or a.version == version)]
    if not found:
        raise UserError(f"{reference}: no file below {folder} declares such data: give a path with --set inputs.NAME=PATH")
    path = str(found[-1].document.value.get("path"))
    if "://" in path or path.startswith("azureml:"):
        raise UserError(f"{reference}: is made of {path}, which is not on this machine: give --set inputs.NAME=PATH")
    return (found[-1].document.path.parent / path).resolve()
