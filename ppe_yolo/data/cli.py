"""Commands for annotated data sets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from ppe_yolo.core.errors import UserError
from ppe_yolo.options import ClassMapOption, DataArgument, OnError, OutOption, out_console

if TYPE_CHECKING:
    from ppe_yolo.data.store.store import Transfer

app = typer.Typer()
benchmark_app = typer.Typer()

data_app = typer.Typer(help="Versions of data sets in a blob store, and samples of boxes.", no_args_is_help=True)

UrlArgument = Annotated[
    str, typer.Argument(metavar="URL", help="az://CONTAINER/PATH, a folder, or any other URL that fsspec supports.")
]
OnErrorOption = Annotated[
    OnError,
    typer.Option("--on-error", help="If the audit finds errors: stop and list them, or skip the affected images."),
]


@data_app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Pascal VOC folder.")],
    url: UrlArgument,
) -> None:
    """Uploads a folder as a new version. After a failure, the same command uploads what is missing."""
    from ppe_yolo.data.store.store import Store

    _print_transfer(Store(url).push(folder, out_console), "uploaded")


@data_app.command()
def pull(
    url: UrlArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder, or that of an interrupted pull.")],
    version: Annotated[str | None, typer.Option("--version", help="A version shown by `list`; by default the newest.")] = None,
) -> None:
    """Downloads a version and verifies every file. After a failure, the same command downloads what is missing."""
    from ppe_yolo.data.store.store import Store

    _print_transfer(Store(url).pull(folder, version, out_console), "downloaded")


@data_app.command(name="list")
def list_versions(url: UrlArgument) -> None:
    """Lists the versions, oldest first."""
    from ppe_yolo.data.store.store import Store

    table = Table("version", "pushed (UTC)", "files", "MB")
    for manifest in Store(url).versions():
        table.add_row(manifest.version, manifest.created[:19], f"{len(manifest.files):,}", f"{manifest.size / 1e6:.1f}")
    out_console.print(table)


@data_app.command()
def samples(
    messages: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with the messages that IoT Hub wrote.")],
    out: OutOption,
) -> None:
    """Collects the samples that boxes uploaded, as a Pascal VOC folder whose draft annotations must be corrected."""
    from ppe_yolo.data.device_samples import collect

    found = collect(messages, out)
    out_console.print(
        f"{found.samples} samples of {found.devices} devices; the models were unsure of {found.unsure_frames} of "
        f"{found.frames} frames ({found.unsure_share:.1%}); {found.unreadable} unreadable lines",
        soft_wrap=True,
    )


def _print_transfer(done: "Transfer", verb: str) -> None:
    files = len(done.manifest.files)
    out_console.print(
        f"version {done.manifest.version}: {files:,} files; {done.moved:,} {verb} ({done.moved_bytes / 1e6:.1f} MB), "
        f"{files - done.moved:,} already present",
        soft_wrap=True,
    )


@app.command()
def audit(
    data: DataArgument,
    class_map: ClassMapOption = "default",
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write all problems and statistics to this file.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write a page that shows the problems on the images.")
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Write a corrected copy to --out, and list the changes, instead of a report.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="With --fix: the folder to write.")] = None,
) -> None:
    """Checks every image and annotation of a data set. The exit code is 1 if there are errors.

    With --fix, it writes a copy with all unambiguous errors corrected. The exit code is 1 if images were left out because a
    person must correct them.
    """
    from ppe_yolo.data.dataset import AnnotatedDataset
    from ppe_yolo.data.review.printing import print_report

    if fix != (out is not None):
        raise UserError(setting="out", expected="--fix and --out together", got="--fix alone" if fix else "--out alone")
    if out is not None:
        if json is not None or html is not None:
            raise UserError(setting="fix", expected="no --json and no --html with it", got="one of them")
        _fix(data, out, class_map)
        return
    dataset = AnnotatedDataset.open(data, class_map, on_error="skip")
    out_console.print(dataset.describe(), markup=False, soft_wrap=True)
    print_report(dataset, out_console, json)
    try:
        dataset.check_names()
    except UserError as error:  # no reason to hide the other problems
        out_console.print(error.describe("--class-map"), markup=False, soft_wrap=True)
    if json is not None:
        dataset.save_audit(json)
        out_console.print(f"all problems: {json}", soft_wrap=True, markup=False)
    if html is not None:
        from ppe_yolo.data.review.page import write_page

        write_page(dataset, html)
        out_console.print(f"page: {html}", soft_wrap=True, markup=False)
    if dataset.errors:
        raise typer.Exit(1)


def _fix(data: Path, out: Path, class_map: str) -> None:
    from ppe_yolo.data.review.fix import CHANGES_FILE, fix
    from ppe_yolo.data.review.printing import print_changes

    result = fix(data, out, class_map)
    print_changes(result, out / CHANGES_FILE, out_console)
    if result.left_out:
        raise typer.Exit(1)


@app.command(name="list")
def list_(
    data: DataArgument,
    out: OutOption,
    class_map: ClassMapOption = "default",
    prefix: Annotated[
        str | None,
        typer.Option(
            help="Write PREFIX/<file name> instead of the path of each image, such as https://host/container/JPEGImages."
        ),
    ] = None,
    on_error: OnErrorOption = "stop",
) -> None:
    """Writes annotation lists, voc_<split>.txt, with one line per image: `PATH_OR_URL x1,y1,x2,y2,class ...`."""
    from ppe_yolo.data.dataset import AnnotatedDataset
    from ppe_yolo.data.prepare import write_lists

    dataset = AnnotatedDataset.open(data, class_map, on_error=on_error)
    for written in write_lists(dataset, out, prefix):
        out_console.print(f"{written.path}: {written.images} images, {written.objects} objects", soft_wrap=True)


@app.command()
def prepare(
    data: DataArgument,
    out: OutOption,
    class_map: ClassMapOption = "default",
    on_error: OnErrorOption = "stop",
    format: Annotated[
        Literal["voc", "yolo", "coco"], typer.Option("--format", help="Format to write: Pascal VOC, YOLO or COCO JSON.")
    ] = "voc",
    checks: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Output of scripts/check_images.py for the same images, from a job on several machines."
        ),
    ] = None,
) -> None:
    """Writes a data set ready for training: audited, with the classes of the model, explicit splits and annotation lists."""
    from ppe_yolo.data.prepare import prepare as run

    dataset = run(data, out, class_map=class_map, on_error=on_error, format=format, checks=checks)
    for split, images in dataset.splits.items():
        out_console.print(f"{split}: {len(images)} images, {sum(len(i.objects) for i in images)} objects")
    skipped = f", {dataset.left_out} images skipped" if dataset.left_out else ""
    out_console.print(f"{len(dataset.errors)} errors{skipped}; files: {out}", soft_wrap=True)


@benchmark_app.command(name="audit")
def benchmark_audit(
    images: Annotated[int, typer.Option(min=1, help="Number of images to draw.")] = 100_000,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="A folder with room for them, 35 kB each; by default a temporary one.",
        ),
    ] = None,
) -> None:
    """Times a first audit, the same again from the cache, and the search for images that look alike."""
    from ppe_yolo.data.audit_benchmark import benchmark_audit as run
    from ppe_yolo.data.audit_benchmark import print_benchmark

    print_benchmark(run(images, folder), out_console)


@benchmark_app.command(name="loading")
def benchmark_loading(
    images: Annotated[int, typer.Option(min=1, help="Number of images to draw, 12 megapixels each.")] = 8,
    input_side: Annotated[int, typer.Option(min=32, help="Longer side of the network's input, pixels.")] = 416,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="A folder with room for them, 10 MB each; by default a temporary one.",
        ),
    ] = None,
) -> None:
    """Times how long training takes to read a 12-megapixel image: at full size, at reduced size, and from small copies."""
    from ppe_yolo.data.loading.benchmark import SIZE, print_benchmark
    from ppe_yolo.data.loading.benchmark import benchmark_loading as run

    title = f"images of {SIZE[1]}x{SIZE[0]} pixels for an input of {input_side} pixels"
    print_benchmark(run(images, input_side, folder=folder), title, out_console)
