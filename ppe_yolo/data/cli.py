"""`ppe-yolo data ...`: versions of a data set in a blob store."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

data_app = typer.Typer(help="Data sets in a blob store: versions that never change.", no_args_is_help=True)
_out = Console(highlight=False)

UrlArgument = Annotated[str, typer.Argument(metavar="URL", help="az://CONTAINER/PATH, a folder, or what fsspec knows.")]


@data_app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Pascal VOC folder.")],
    url: UrlArgument,
) -> None:
    """Stores a folder as a version; started again after a failure, it sends what is missing."""
    from ppe_yolo.data.store import Store

    done = Store(url).push(folder, _out)
    _print(done.manifest.version, len(done.manifest.files), done.moved, done.moved_bytes, "sent")


@data_app.command()
def pull(
    url: UrlArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New, empty, or of a pull that was stopped.")],
    version: Annotated[str | None, typer.Option("--version", help="See `list`; the newest if not given.")] = None,
) -> None:
    """Fetches a version and checks every file; started again after a failure, it fetches what is missing."""
    from ppe_yolo.data.store import Store

    done = Store(url).pull(folder, version, _out)
    _print(done.manifest.version, len(done.manifest.files), done.moved, done.moved_bytes, "fetched")


@data_app.command(name="list")
def list_(url: UrlArgument) -> None:
    """Shows the versions, the oldest first."""
    from ppe_yolo.data.store import Store

    table = Table("version", "pushed (UTC)", "files", "MB")
    for manifest in Store(url).versions():
        table.add_row(manifest.version, manifest.created[:19], f"{len(manifest.files):,}", f"{manifest.size / 1e6:.1f}")
    _out.print(table)


def _print(version: str, files: int, moved: int, moved_bytes: int, verb: str) -> None:
    there = files - moved
    _out.print(f"version {version}: {files:,} files; {moved:,} {verb} ({moved_bytes / 1e6:.1f} MB), {there:,} were there")
