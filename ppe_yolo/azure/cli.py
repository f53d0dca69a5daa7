"""`ppe-yolo azureml ...`: runs, checks and submits Azure ML pipelines."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ppe_yolo.core.errors import UserError

if TYPE_CHECKING:
    from ppe_yolo.azure.submit import Client

azureml_app = typer.Typer(help="Azure ML: run a pipeline locally, check its YAML, submit it.", no_args_is_help=True)
_console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)  # emoji: line 100 of a file is ":100:"

PipelineArgument = Annotated[Path, typer.Argument(metavar="PIPELINE", help="A pipeline file, such as azureml/pipeline.yml.")]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", metavar="FILE", help="config.json of the workspace. Default: AZUREML_* variables."),
]
OutOption = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Download outputs and logs to this folder.")]
OutputOption = Annotated[
    list[str] | None,
    typer.Option("--output", metavar="NAME", help="With --out, download only this output. Repeatable."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a value, such as inputs.max_epochs=3 or jobs.train.resources.instance_count=2. Repeatable.",
    ),
]


@azureml_app.command()
def run(
    pipeline: PipelineArgument,
    local: Annotated[bool, typer.Option("--local", help="Run on this machine (required; `submit` runs on Azure).")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Run folder. Default: runs/azureml/<pipeline>.")
    ] = None,
    settings: SetOption = None,
) -> None:
    """Runs a pipeline without Azure. Repeat the command to resume an interrupted run."""
    from ppe_yolo.azure.lint.linter import load_checked_pipeline
    from ppe_yolo.azure.local.runner import run_local

    if not local:
        raise UserError(setting="local", expected="this option", got="none", hint="`ppe-yolo azureml submit` runs on Azure")
    read, _ = load_checked_pipeline(pipeline, settings or ())
    result = run_local(read, out or Path("runs/azureml") / pipeline.stem, _console.print)
    if (failure := result.failure) is not None:
        for line in failure.log_tail():
            _console.print(line)
        _console.print(f"{failure.step}: failed, {failure.reason}; log: {failure.log}")
        raise typer.Exit(1)
    _console.print(f"outputs: {result.outputs}")


@azureml_app.command()
def lint(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file, or a folder to check completely.")] = Path("azureml"),
) -> None:
    """Checks Azure ML YAML offline, also with azure-ai-ml if it is installed; exit code 1 if there are mistakes."""
    from ppe_yolo.azure.lint.linter import lint as run_lint

    report = run_lint(path, context.find_root().command)
    if not report.azure_validated:
        _console.print("azure-ai-ml is not installed: Azure's own validation was not run (pip install 'ppe-yolo[azureml]')")
    for mistake in report.mistakes:
        _console.print(str(mistake))
    if report.skipped_folders:
        _console.print(f"skipped, not Azure ML: {', '.join(report.skipped_folders)}")
    _console.print(f"{len(report.checked)} files checked, {len(report.mistakes)} mistakes")
    if report.mistakes:
        raise typer.Exit(1)


@azureml_app.command()
def submit(
    pipeline: PipelineArgument,
    workspace: WorkspaceOption = None,
    out: OutOption = None,
    output: OutputOption = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the job ends.")] = True,
    only_new_data: Annotated[
        bool, typer.Option("--only-new-data", help="Submit only if the data has a version that no job has used yet.")
    ] = False,
    only_if: Annotated[
        list[str] | None,
        typer.Option(
            "--only-if",
            metavar="FILE:KEY>LIMIT",
            help="Submit only if a figure in a JSON file is above (or with < below) a limit, and only once per version of the "
            "data. Repeatable: any of them suffices.",
        ),
    ] = None,
    components: Annotated[
        str | None,
        typer.Option("--components", metavar="VERSION", help="Run the published components of this version, not the files."),
    ] = None,
    settings: SetOption = None,
) -> None:
    """Submits a pipeline to Azure ML, follows it and downloads its outputs; exit code 1 if it fails."""
    from ppe_yolo.azure.lint.linter import load_checked_pipeline
    from ppe_yolo.azure.publish import published_components
    from ppe_yolo.azure.submit import connect, find_workspace
    from ppe_yolo.azure.submit import submit as run_submit

    if out is not None and not wait:
        raise UserError(setting="out", problem="outputs can only be downloaded when the job has ended", hint="omit --no-wait")
    _check_outputs(out, output)
    read, changed = load_checked_pipeline(pipeline, settings or ())
    if unknown := set(output or ()) - set(read.outputs):
        raise UserError(setting="output", expected=f"one of {', '.join(read.outputs)}", got=", ".join(sorted(unknown)))
    trigger = _first_met(only_if or ())
    if only_if and trigger is None:
        _console.print("not submitted: no figure is beyond its limit")
        return
    if components is not None:
        changed |= published_components(read, components)
    client = connect(find_workspace(workspace, os.environ))
    submission = run_submit(read, changed, client, only_new_data=only_new_data, trigger=trigger)
    if not submission.is_new and submission.failed_attempts:
        raise UserError(
            f"not submitted: {submission.failed_attempts} jobs with {dict(submission.data_versions)} failed",
            item=submission.job,
            hint="fix the cause, then submit once without --only-new-data",
        )
    if not submission.is_new:
        _console.print(f"no new data: {submission.job} already uses {dict(submission.data_versions)}")
        return
    _console.print(f"submitted: {submission.job} {submission.studio_url}")
    if wait:
        _follow(submission.job, client, out, output)


@azureml_app.command()
def component(
    pipeline: PipelineArgument,
    version: Annotated[str, typer.Option("--version", metavar="VERSION", help="Version of the component and of its steps.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write, for `az ml component create`.")],
) -> None:
    """Writes a pipeline as one versioned component, whose steps are published components of the same version."""
    import yaml

    from ppe_yolo.azure.lint.linter import load_checked_pipeline
    from ppe_yolo.azure.publish import pipeline_component
    from ppe_yolo.core.files import write_text

    content = pipeline_component(load_checked_pipeline(pipeline, ())[0], version)
    write_text(out, yaml.safe_dump(content, sort_keys=False))
    _console.print(f"azureml:{content['name']}:{version}: {out}")


@azureml_app.command()
def follow(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Name of a job, as `submit` prints it.")],
    workspace: WorkspaceOption = None,
    out: OutOption = None,
    output: OutputOption = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="Stop waiting after this time, and leave the job running.")
    ] = None,
) -> None:
    """Waits for a submitted job and downloads its outputs; exit code 1 if it fails, or if its outputs are not there in time."""
    from ppe_yolo.azure.submit import connect, find_workspace

    _check_outputs(out, output)
    _follow(job, connect(find_workspace(workspace, os.environ)), out, output, minutes)


def _first_met(limits: Sequence[str]) -> str | None:
    """Prints the figures of `--only-if`; returns the first limit that is exceeded, None if none is."""
    from ppe_yolo.azure.trigger import Trigger

    triggers = [Trigger.parse(limit) for limit in limits]
    for trigger in triggers:
        _console.print(f"{trigger.name}: {trigger.value():g}")
    return next((trigger.name for trigger in triggers if trigger.holds()), None)


def _check_outputs(out: Path | None, output: list[str] | None) -> None:
    if output and out is None:
        raise UserError(setting="output", expected="also --out, the folder to download to", got="none")


def _follow(job: str, client: "Client", out: Path | None, output: list[str] | None, minutes: float | None = None) -> None:
    from ppe_yolo.azure.submit import follow as run_follow

    followed = run_follow(job, client, out, output or (), minutes=minutes)
    if out is not None and followed.ended:
        _console.print(f"outputs: {out}")
    _console.print(f"{followed.job}: {followed.status}{f': {followed.failure}' if followed.failure else ''}")
    if not followed.succeeded and (followed.ended or out is not None):
        raise typer.Exit(1)
