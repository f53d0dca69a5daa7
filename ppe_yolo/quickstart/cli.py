"""`ppe-yolo quickstart`."""

from pathlib import Path
from typing import Annotated

import typer

from ppe_yolo.options import DATA_HELP, ClassMapOption, out_console, require_process_numbers, require_torch

app = typer.Typer()


@app.command()
def quickstart(
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help=f"{DATA_HELP} A building site is drawn without it.")
    ] = None,
    class_map: ClassMapOption = "default",
    epochs: Annotated[int | None, typer.Option(min=1, help="Length of the training.")] = None,
    run_dir: Annotated[Path | None, typer.Option("--run-dir", metavar="DIR", help="runs/quickstart-<n> by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawing and the training.")] = 0,
) -> None:
    """Draws or audits a data set, trains on it and evaluates the detector, in minutes on a laptop."""
    require_process_numbers()
    require_torch()
    from ppe_yolo.quickstart.quickstart import quickstart as run

    run(str(data) if data else None, class_map, epochs, run_dir, seed, out_console)
