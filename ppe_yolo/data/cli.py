"""Commands on annotated data sets."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ppe_yolo.core.errors import UserError
from ppe_yolo.options import ClassMapOption, DataArgument, OnError, OutOption, out_console

app = typer.Typer()

data_app = typer.Typer(help="Data sets in a blob store: versions that never change.", no_args_is_help=True)

UrlArgument = Annotated[str, typer.Argument(metavar="URL", help="az://CONTAINER/PATH, a folder, or what fsspec knows.")]


@data_app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Pascal VOC folder.")],
    url: UrlArgument,
) -> None:
    """Stores a folder as a version; started again after a failure, it sends what is missing."""
    from ppe_yolo.data.store import Store

    done = Store(url).push(folder, out_console)
    _print(done.manifest.version, len(done.manifest.files), done.moved, done.moved_bytes, "sent")


@data_app.command()
def pull(
    url: UrlArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New, empty, or of a pull that was stopped.")],
    version: Annotated[str | None, typer.Option("--version", help="See `list`; the newest if not given.")] = None,
) -> None:
    """Fetches a version and checks every file; started again after a failure, it fetches what is missing."""
    from ppe_yolo.data.store import Store

    done = Store(url).pull(folder, version, out_console)
    _print(done.manifest.version, len(done.manifest.files), done.moved, done.moved_bytes, "fetched")


@data_app.command(name="list")
def list_versions(url: UrlArgument) -> None:
    """Shows the versions, the oldest first."""
    from ppe_yolo.data.store import Store

    table = Table("version", "pushed (UTC)", "files", "MB")
    for manifest in Store(url).versions():
        table.add_row(manifest.version, manifest.created[:19], f"{len(manifest.files):,}", f"{manifest.size / 1e6:.1f}")
    out_console.print(table)


def _print(version: str, files: int, moved: int, moved_bytes: int, verb: str) -> None:
    there = files - moved
    out_console.print(
        f"version {version}: {files:,} files; {moved:,} {verb} ({moved_bytes / 1e6:.1f} MB), {there:,} were there"
    )


@app.command()
def audit(
    data: DataArgument,
    class_map: ClassMapOption = "default",
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write every problem there.")] = None,
) -> None:
    """The data doctor: every problem of a data set; exit code 1 when there are errors."""
    from ppe_yolo.data.audit import audit as run
    from ppe_yolo.data.audit import print_report
    from ppe_yolo.data.class_map import load_class_map

    mapping = load_class_map(class_map)
    report = run(data, mapping)
    print_report(report, out_console)
    try:
        report.check_names(mapping)
    except UserError as error:  # told as everywhere else, but the other problems were wanted as well
        out_console.print(str(error), markup=False, soft_wrap=True)
    if json is not None:
        report.save(json)
        out_console.print(f"all problems: {json}", soft_wrap=True)
    if report.errors:
        raise typer.Exit(1)


@app.command(name="list")
def list_(
    data: DataArgument,
    out: OutOption,
    class_map: ClassMapOption = "default",
    prefix: Annotated[
        str | None,
        typer.Option(help="Write PREFIX/<file name> instead of the photo's path, such as https://host/container/JPEGImages."),
    ] = None,
    on_error: Annotated[
        OnError, typer.Option("--on-error", help="What to do about photos that the audit refuses.")
    ] = OnError.stop,
) -> None:
    """Writes annotation lists, voc_<split>.txt: `PATH_OR_URL x1,y1,x2,y2,class ...` a line."""
    from dataclasses import replace

    from ppe_yolo.data.audit import audit as run
    from ppe_yolo.data.class_map import load_class_map
    from ppe_yolo.data.images import is_url
    from ppe_yolo.data.sources.annotation_list import write_annotation_list

    mapping = load_class_map(class_map)
    report = run(data, mapping)
    if on_error is OnError.stop:
        report.raise_on_errors(mapping)
    for split, images in report.images.items():
        if prefix is not None:
            located = [replace(i, image=f"{prefix.rstrip('/')}/{Path(i.image).name}") for i in images]
        else:
            located = [i if is_url(i.image) else replace(i, image=str(Path(i.image).resolve())) for i in images]
        path = out / f"voc_{split}.txt"
        write_annotation_list(path, located)
        out_console.print(f"{path}: {len(located)} photos, {sum(len(i.objects) for i in located)} objects", soft_wrap=True)


@app.command()
def prepare(
    data: DataArgument,
    out: OutOption,
    class_map: ClassMapOption = "default",
    on_error: Annotated[
        OnError, typer.Option("--on-error", help="What to do about photos that the audit refuses.")
    ] = OnError.stop,
) -> None:
    """Makes a data set ready once, as a job does: audited, the model's names, explicit splits, annotation lists."""
    from ppe_yolo.data.prepare import prepare as run

    run(data, out, class_map=class_map, on_error=on_error.value, console=out_console)
