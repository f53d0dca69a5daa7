"""Prints the outcome of a promotion."""

from rich.console import Console
from rich.table import Table

from ppe_yolo.evaluation.percent import percent
from ppe_yolo.gate.promotion import Promotion
from ppe_yolo.gate.registry import Registry
from ppe_yolo.tracking import without_secrets


def print_promotion(promotion: Promotion, registry: Registry, console: Console) -> None:
    """Prints the conditions as a table, and the outcome."""
    decision, version = promotion.decision, promotion.version
    table = Table("condition", "champion", "challenger", "demand", "")
    for c in decision.conditions:
        table.add_row(c.name, c.champion, c.challenger, c.demand, "holds" if c.holds else "FAILS")
    console.print(table)
    for name in ("champion", "challenger"):
        numbers = decision.numbers[name]
        if numbers is not None:  # for information: precision is no condition
            console.print(f"{name}: alarms of the critical class have a precision of {percent(numbers['precision'])}")
    if promotion.champion is None:
        where = f"{registry.name} had no champion in {without_secrets(registry.uri)}"
        console.print(f"{where}: only the absolute conditions were checked", markup=False, soft_wrap=True)
    label = f"{registry.name} version {version.number}"
    if decision.promoted:
        console.print(f"promoted: {label} is the champion", soft_wrap=True)
    else:
        console.print(f"rejected: {label}: {'; '.join(decision.reasons)}", soft_wrap=True)
