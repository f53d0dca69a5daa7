"""`ppe-yolo promote` and `ppe-yolo rollback`."""

from pathlib import Path
from typing import Annotated

import typer

from ppe_yolo.core.errors import UserError
from ppe_yolo.options import OnnxArgument, out_console, require_torch

app = typer.Typer()


RegistryOption = Annotated[
    str | None,
    typer.Option("--registry", metavar="URI", help="sqlite:///FILE or an address of MLflow; MLFLOW_TRACKING_URI if not given."),
]
RegisteredNameOption = Annotated[str, typer.Option("--name", help="The registered model.")]


@app.command()
def promote(
    model: OnnxArgument,
    evaluation: Annotated[
        Path, typer.Option("--evaluation", metavar="DIR", help="What `ppe-yolo evaluate MODEL --split test` left.")
    ],
    registry: RegistryOption = None,
    name: RegisteredNameOption = "helmet",
    margin: Annotated[float, typer.Option(min=0, help="Points of mAP@0.5 to be gained on the champion.")] = 0.5,
    min_recall: Annotated[
        float, typer.Option("--min-recall", min=0, max=1, help="Least recall of the critical class, champion or not.")
    ] = 0.5,
    max_latency_ms: Annotated[
        float | None,
        typer.Option("--max-latency-ms", min=0, help="Budget of a 1280x720 frame here; if not given, 1.2 x the champion's."),
    ] = None,
    max_false_alarms: Annotated[
        float | None,
        typer.Option("--max-false-alarms", min=0, help="Budget on 1,000 photos; if not given, 1.2 x the champion's."),
    ] = None,
    critical_class: Annotated[str, typer.Option("--critical-class", help="Whose recall must not fall.")] = "none",
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Also leave decision.json there.")] = None,
    exit_zero: Annotated[
        bool, typer.Option("--exit-zero", help="A rejection is a result, not a failure: exit code 0, see decision.json.")
    ] = False,
) -> None:
    """The gate: a model replaces the champion only where it is better; exit code 1 when it is not."""
    require_torch()
    from ppe_yolo.evaluation.decisions.selection import Demands
    from ppe_yolo.gate.promotion import promote as run
    from ppe_yolo.gate.registry import Registry, registry_uri

    demands = Demands(
        critical_class=critical_class,
        min_recall=min_recall,
        margin=margin,
        max_latency_ms=max_latency_ms,
        max_false_alarms=max_false_alarms,
    )
    if exit_zero and out is None:
        raise UserError("--exit-zero: the decision would be lost: add --out DIR")
    decision = run(model, evaluation, Registry(registry_uri(registry), name), demands, out_console, out)
    if not decision.promoted and not exit_zero:
        raise typer.Exit(1)


@app.command()
def rollback(registry: RegistryOption = None, name: RegisteredNameOption = "helmet") -> None:
    """Makes the champion before the present one the champion again."""
    require_torch()
    from ppe_yolo.gate.promotion import rollback as run
    from ppe_yolo.gate.registry import Registry, registry_uri

    run(Registry(registry_uri(registry), name), out_console)
