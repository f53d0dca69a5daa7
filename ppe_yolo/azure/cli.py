"""`ppe-yolo azureml ...`: the jobs of azureml/, here or on Azure."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ppe_yolo.core.errors import UserError

azureml_app = typer.Typer(help="Azure ML: run a pipeline here, check its YAML, submit it.", no_args_is_help=True)
_out = Console(highlight=False, markup=False)

PipelineArgument = Annotated[Path, typer.Argument(metavar="PIPELINE", help="Such as azureml/pipeline.yml.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="inputs.max_epochs=3, jobs.train.resources.instance_count=2, ..."),
]


@azureml_app.command()
def run(
    pipeline: PipelineArgument,
    local: Annotated[bool, typer.Option("--local", help="On this machine; on Azure it is `submit`.")] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="runs/azureml/<name> if not given.")] = None,
    settings: SetOption = None,
) -> None:
    """Runs a pipeline without Azure: its own commands in order; started again, it goes on where it stopped."""
    from ppe_yolo.azure.lint.lint import checked_pipeline
    from ppe_yolo.azure.local.local import run_local

    if not local:
        raise UserError("run: runs here with --local; on Azure it is `ppe-yolo azureml submit`")
    read, _ = checked_pipeline(pipeline, settings or ())
    if not run_local(read, out or Path("runs/azureml") / pipeline.stem, _out):
        raise typer.Exit(1)


@azureml_app.command()
def lint(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file, or a folder with all of it.")] = Path("azureml"),
) -> None:
    """Checks Azure ML's YAML with ours and Azure's own validation, offline; exit code 1 when something is wrong."""
    from ppe_yolo.azure.lint.lint import lint as run

    if run(path, _out):
        raise typer.Exit(1)


@azureml_app.command()
def submit(
    pipeline: PipelineArgument,
    workspace: Annotated[
        Path | None, typer.Option("--workspace", metavar="FILE", help="config.json; else AZUREML_SUBSCRIPTION_ID and so on.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Fetch outputs and logs there.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end.")] = True,
    only_new_data: Annotated[
        bool, typer.Option("--only-new-data", help="Only if the data has a version that was not submitted yet.")
    ] = False,
    settings: SetOption = None,
) -> None:
    """Submits a pipeline to Azure, follows it and fetches its outputs; exit code 1 when it fails."""
    from ppe_yolo.azure.lint.lint import checked_pipeline
    from ppe_yolo.azure.submit import connect, find_workspace
    from ppe_yolo.azure.submit import submit as run

    if out is not None and not wait:
        raise UserError("--out: outputs can be fetched at the end alone: leave --no-wait out")
    read, changed = checked_pipeline(pipeline, settings or ())
    client = connect(find_workspace(workspace, os.environ))
    if not run(read, changed, client, out=out, wait=wait, only_new_data=only_new_data, console=_out):
        raise typer.Exit(1)
