"""`ppe-yolo promote` and `ppe-yolo rollback`."""

from pathlib import Path
from typing import Annotated

import typer

from ppe_yolo.core.errors import UserError
from ppe_yolo.options import OnnxArgument, out_console, require_torch

app = typer.Typer()


RegistryOption = Annotated[
    str | None,
    typer.Option(
        "--registry",
        metavar="URI",
        help="sqlite:///FILE, an address of MLflow or of an Azure ML workspace; by default MLFLOW_TRACKING_URI.",
    ),
]
RegisteredNameOption = Annotated[str, typer.Option("--name", help="The registered model.")]


@app.command()
def promote(
    model: OnnxArgument,
    evaluation: Annotated[
        Path, typer.Option("--evaluation", metavar="DIR", help="Folder of `ppe-yolo evaluate MODEL --split test`.")
    ],
    registry: RegistryOption = None,
    name: RegisteredNameOption = "helmet",
    margin: Annotated[float, typer.Option(min=0, help="Points of mAP@0.5 by which the model must exceed the champion.")] = 0.5,
    min_recall: Annotated[
        float,
        typer.Option("--min-recall", min=0, max=1, help="Lowest recall of the critical class, with or without a champion."),
    ] = 0.5,
    max_latency_ms: Annotated[
        float | None,
        typer.Option("--max-latency-ms", min=0, help="Limit for a 1280x720 frame here; by default 1.2 x the champion's."),
    ] = None,
    max_false_alarms: Annotated[
        float | None,
        typer.Option("--max-false-alarms", min=0, help="Limit per 1,000 images; by default 1.2 x the champion's."),
    ] = None,
    max_domain_loss: Annotated[
        float | None,
        typer.Option(
            "--max-domain-loss", min=0, help="Points that the model may lose in any single data set; by default not checked."
        ),
    ] = None,
    critical_class: Annotated[str, typer.Option("--critical-class", help="The class whose recall must not fall.")] = "none",
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Also write decision.json there.")] = None,
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="Exit code 0 for a rejection, too; needs --out.")] = False,
) -> None:
    """Promotes a model if it is better than the champion; exit code 1 if it is rejected."""
    require_torch()
    from ppe_yolo.evaluation.decisions.promotion_rules import Demands
    from ppe_yolo.gate.printing import print_promotion
    from ppe_yolo.gate.promotion import promote as run
    from ppe_yolo.gate.registry import Registry, registry_uri

    demands = Demands(
        critical_class=critical_class,
        min_recall=min_recall,
        margin=margin,
        max_latency_ms=max_latency_ms,
        max_false_alarms=max_false_alarms,
        max_domain_loss=max_domain_loss,
    )
    if exit_zero and out is None:
        raise UserError(setting="exit_zero", problem="the decision would be lost", hint="add --out DIR")
    models = Registry(registry_uri(registry), name)
    if models.missing_file is not None:
        out_console.print(f"{models.missing_file}: no registry yet, a new one is created", markup=False, soft_wrap=True)
    promotion = run(model, evaluation, models, demands, out=out, on_wait=_show_wait)
    print_promotion(promotion, models, out_console)
    if not promotion.decision.promoted and not exit_zero:
        raise typer.Exit(1)


@app.command()
def rollback(registry: RegistryOption = None, name: RegisteredNameOption = "helmet") -> None:
    """Rejects the champion and makes the one before it champion again."""
    require_torch()
    from ppe_yolo.gate.registry import Registry, registry_uri

    models = Registry(registry_uri(registry), name)
    if models.missing_file is not None:
        got = "no such file"
        raise UserError(setting="registry", file=models.missing_file, expected="a registry of `ppe-yolo promote`", got=got)
    with models.locked(_show_wait):
        old, new = models.roll_back()
    out_console.print(f"{name}: version {new.number} is the champion again, version {old.number} is rejected")


def _show_wait(lock: str) -> None:
    out_console.print(f"waiting for another promotion, which holds {lock}", soft_wrap=True)
