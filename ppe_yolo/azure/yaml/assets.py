"""Assets that the YAML files of a folder declare: data, environments and clusters, by name and version."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppe_yolo.azure.yaml.document import Document, UnreadableError, read_document
from ppe_yolo.core.errors import UserError

SCHEMAS = "azuremlschemas.azureedge.net"
# last part of `$schema`, without .schema.json
KINDS = {
    "pipelineJob": "pipeline",
    "commandComponent": "component",
    "parallelComponent": "component",
    "pipelineComponent": "pipeline component",
    "environment": "environment",
    "amlCompute": "compute",
    "data": "data",
    "schedule": "schedule",
    "commandJob": "command",
}


@dataclass(frozen=True, kw_only=True)
class Asset:
    """An asset declared in a file; other files refer to it as `azureml:NAME:VERSION`, or `azureml:NAME` for a cluster."""

    kind: str
    name: str
    version: str | None
    document: Document


def kind_of(value: Any) -> str | None:
    """The kind of a file by its `$schema`: None if it is not an Azure ML file, "" if the schema is unknown."""
    schema = value.get("$schema") if isinstance(value, Mapping) else None
    if not isinstance(schema, str) or SCHEMAS not in schema:
        return None
    return KINDS.get(schema.rpartition("/")[2].removesuffix(".schema.json"), "")


def yaml_files(folder: Path) -> list[Path]:
    """All YAML files below a folder."""
    return sorted(p for p in folder.rglob("*") if p.suffix in (".yml", ".yaml") and p.is_file())


def declared(folder: Path) -> Iterator[Asset]:
    """All assets that the files below a folder declare, and the datastores of infra/template.json. Skips unreadable files."""
    yield from _declared_datastores(folder)
    for path in yaml_files(folder):
        try:
            document = read_document(path)
        except UnreadableError:
            continue
        kind = kind_of(document.value)
        if kind in ("environment", "compute", "data") and "name" in document.value:
            version = document.value.get("version")
            yield Asset(
                kind=kind,
                name=str(document.value["name"]),
                version=None if version is None else str(version),
                document=document,
            )


def _declared_datastores(folder: Path) -> Iterator[Asset]:
    for path in folder.glob("infra/template.json"):
        try:
            document = read_document(path)
        except UnreadableError:
            continue
        variables = document.value.get("variables") if isinstance(document.value, Mapping) else None
        names = variables.get("datastores") if isinstance(variables, Mapping) else None
        for name in names or ():
            yield Asset(kind="datastore", name=str(name), version=None, document=document)


def find_data(folder: Path, reference: str) -> Path:
    """The local folder that a data asset `azureml:NAME:VERSION` is created from.

    Raises:
        UserError: No file declares the asset, or it is not created from a local folder.
    """
    hint = "give a path with --set inputs.NAME=PATH"
    name, _, version = reference.removeprefix("azureml:").partition("@" if "@" in reference else ":")
    matches = [
        a for a in declared(folder) if a.kind == "data" and a.name == name and ("@" in reference or a.version == version)
    ]
    if not matches:
        raise UserError(f"no file below {folder} declares this asset", item=reference, hint=hint)
    path = str(matches[-1].document.value.get("path"))
    if "://" in path or path.startswith("azureml:"):
        raise UserError(f"refers to {path}, which is not on this machine", item=reference, hint=hint)
    return (matches[-1].document.path.parent / path).resolve()
