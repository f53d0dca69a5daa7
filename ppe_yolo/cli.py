"""The command line: `ppe-yolo <subcommand>`. Heavy libraries are imported by the commands that need them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import ppe_yolo.data.cli
import ppe_yolo.evaluation.cli
import ppe_yolo.export.cli
import ppe_yolo.gate.cli
import ppe_yolo.inference.cli
import ppe_yolo.training.cli
from ppe_yolo import __version__
from ppe_yolo.azure.cli import azureml_app
from ppe_yolo.core.errors import UserError
from ppe_yolo.options import ClassMapOption, out_console, require_torch

app = typer.Typer(
    name="ppe-yolo",
    help="Finds heads with and without a helmet: data, training, evaluation, prediction.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        out_console.print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    pass


@app.command()
def quickstart(
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Your photos; without it, a building site is drawn.")
    ] = None,
    class_map: ClassMapOption = "default",
    epochs: Annotated[int | None, typer.Option(min=1, help="Length of the training.")] = None,
    run_dir: Annotated[Path | None, typer.Option("--run-dir", metavar="DIR", help="runs/quickstart-<n> if not given.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the drawing and the training.")] = 0,
) -> None:
    """From nothing, or from your photos, to an evaluated detector, in minutes on a laptop."""
    require_torch()
    from ppe_yolo.quickstart import quickstart as run

    run(str(data) if data else None, class_map, epochs, run_dir, seed, out_console)


benchmark_app = typer.Typer(help="Speed, measured side by side on this machine.", no_args_is_help=True)
for package in (ppe_yolo.training, ppe_yolo.evaluation, ppe_yolo.inference, ppe_yolo.export, ppe_yolo.gate, ppe_yolo.data):
    app.add_typer(package.cli.app)
for package in (ppe_yolo.training, ppe_yolo.evaluation, ppe_yolo.export):
    benchmark_app.add_typer(package.cli.benchmark_app)
app.add_typer(benchmark_app, name="benchmark")
app.add_typer(azureml_app, name="azureml")
app.add_typer(ppe_yolo.data.cli.data_app, name="data")


def option(setting: str) -> str:
    """The option for a parameter: `--class-map` for `class_map`, and `--data.class_map` for `data.class_map`."""
    return f"--{setting if '.' in setting else setting.replace('_', '-')}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; a user's mistake ends with one line on standard error and exit code 2."""
    try:
        app(args=None if arguments is None else list(arguments))
    except UserError as error:
        message = error.describe(option(error.setting)) if error.setting else str(error)
        print(f"ppe-yolo: error: {' '.join(message.split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("ppe-yolo: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
