"""A rule in words."""

from ppe_edge.rules.config import DEFAULT_SEVERITY, RuleConfig
from ppe_yolo.core.contract import ModelContract


def describe(rule: RuleConfig, contract: ModelContract, time_zone: str | None) -> str:
    """Returns what counts as a violation, where and when: "bare head in zone gate, Mon-Fri 06:00-18:00 Europe/Berlin"."""
    what = contract.display_name(rule.violation_class)
    if rule.inside is not None:
        what += f" inside {contract.display_name(rule.inside)}"
    if rule.without is not None:
        what += f" without {contract.display_name(rule.without)}" + (" at the head" if rule.worn_at == "head" else "")
    zones = list(rule.zones)
    where = f"in zone{'s' if len(zones) > 1 else ''} {' or '.join(zones)}" if zones else "anywhere"
    parts = [f"{what} {where}"]
    if rule.has_schedule:
        parts.append(f"{', '.join(rule.schedule or ('always',))} {time_zone or 'UTC'}")
    parts += [f"on {day} {', '.join(times) or 'off'}" for day, times in sorted(rule.exceptions.items())]
    if rule.severity != DEFAULT_SEVERITY:
        parts.append(rule.severity)
    return ", ".join(parts)
