"""The command line `ppe-yolo`, assembled from the commands of the packages, which import heavy libraries only when they run."""

import errno
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import ppe_yolo.data.cli
import ppe_yolo.evaluation.cli
import ppe_yolo.export.cli
import ppe_yolo.gate.cli
import ppe_yolo.inference.cli
import ppe_yolo.quickstart.cli
import ppe_yolo.training.cli
from ppe_yolo import __version__
from ppe_yolo.azure.cli import azureml_app
from ppe_yolo.core.errors import UserError
from ppe_yolo.options import describe, out_console

_FORMER_NAMES = {"photos": "images", "pictures": "images", "alarm-thresholds": "operating-point"}  # of options, before 0.2

_OUT_OF_MEMORY = ("out of memory", "Failed to allocate memory", "DefaultCPUAllocator")  # of CUDA, onnxruntime and torch


def _current_name(option: str) -> str:
    return _FORMER_NAMES.get(option, option)


app = typer.Typer(
    name="ppe-yolo",
    help="Detects heads with and without a helmet: data, training, evaluation, export, promotion.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": _current_name},
)
benchmark_app = typer.Typer(help="Speed, measured side by side on this machine.", no_args_is_help=True)


def _show_version(is_requested: bool) -> None:
    if is_requested:
        out_console.print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


for package in (
    *(ppe_yolo.quickstart, ppe_yolo.training, ppe_yolo.evaluation, ppe_yolo.inference),
    *(ppe_yolo.export, ppe_yolo.gate, ppe_yolo.data),
):
    app.add_typer(package.cli.app)
for package in (ppe_yolo.training, ppe_yolo.evaluation, ppe_yolo.export, ppe_yolo.data):
    benchmark_app.add_typer(package.cli.benchmark_app)
app.add_typer(benchmark_app, name="benchmark")
app.add_typer(azureml_app, name="azureml")
app.add_typer(ppe_yolo.data.cli.data_app, name="data")


def _shortage(error: Exception) -> str | None:
    """What to do about a full disk or too little memory; None for all other errors."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename2 or error.filename or "the disk"  # the second one of a copy is the one that is written
        return f"{where}: no space is left: free some, and repeat the command (fit: with --ckpt-path last)"
    if isinstance(error, MemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY):
        return (
            "there is too little memory: use a smaller --batch-size (fit: --data.batch_size, with "
            "--trainer.accumulate_grad_batches), or smaller images"
        )
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; a user's mistake prints one line to standard error and exits with code 2."""
    try:
        app(args=None if arguments is None else list(arguments))
    except UserError as error:
        print(f"ppe-yolo: error: {describe(error)}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if (shortage := _shortage(error)) is None:
            raise
        print(f"ppe-yolo: error: {shortage}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("ppe-yolo: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
