"""The figures as CSV, and as a report to read or print: one HTML page without scripts, links or images."""

import csv
import html
import io
from collections.abc import Iterable, Sequence
from datetime import datetime

from ppe_edge.compliance.periods import Row, Unit
from ppe_edge.compliance.store import Count

COLUMNS = ("start", "shift", "camera", "rule", "zone", "compliant", "violations", "compliance_percent")
STYLE = """body { font: 1rem/1.4 system-ui, sans-serif; max-width: 50rem; margin: 1rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; font-weight: 600; margin: 1rem 0 0.25rem; }
th, td { text-align: left; padding: 0.2rem 0 0.2rem 0.75rem; border-bottom: 1px solid #999; } td.n, th.n { text-align: right; }
th:first-child, td:first-child { padding-left: 0; } table + table td:first-child { white-space: nowrap; }
@media (max-width: 30rem) { body { font-size: 0.6875rem; padding: 0 0.5rem; } th, td { padding-left: 0.3rem; } }
@media print { tr { break-inside: avoid; } }"""


def percent(count: Count) -> float:
    """Returns the share of tracked objects without violation, percent with one decimal; `count` must not be empty."""
    return round(100 * count.compliant / (count.compliant + count.violations), 1)


def to_csv(rows: Iterable[Row]) -> str:
    """Returns rows as CSV (RFC 4180) with the header `COLUMNS`; times are ISO 8601 with the offset of the site."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in rows:
        names = [_harmless(name) for name in (row.shift, row.camera, row.rule, row.zone)]
        writer.writerow([row.start.isoformat(), *names, *row.count, percent(row.count)])
    return text.getvalue()


def to_html(title: str, start: datetime, end: datetime, rows: Sequence[Row], unit: Unit = "hour") -> str:
    """Returns the report of a period.

    Args:
        title: Such as "Compliance, early shift".
        start: Start of the period, in the site's time zone.
        end: Its end.
        rows: The figures of the period by `unit`.
        unit: Length of the parts that the second table shows.
    """
    places: dict[tuple[str, str, str], Count] = {}
    parts: dict[str, Count] = {}
    for row in rows:
        place = (row.camera, row.rule, row.zone)
        places[place] = places.get(place, Count()).plus(row.count)
        # with the offset, since the clocks show an hour twice in one night
        part = row.start.isoformat(" ", "minutes") if unit == "hour" else f"{row.start:%Y-%m-%d} {row.shift}".strip()
        parts[part] = parts.get(part, Count()).plus(row.count)
    span = f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} ({start.tzinfo})"
    by_place = _table("By camera, rule and zone", ("Camera", "Rule", "Zone"), [(list(k), c) for k, c in sorted(places.items())])
    by_part = _table(f"By {unit}", ("Start",), [([k], c) for k, c in parts.items()])
    body = by_place + by_part if rows else "<p>Nobody was seen.</p>"
    note = "Each tracked person counts once per rule, where and when first seen, by most of the frames."
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{html.escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{html.escape(title)}</h1>\n<p>{html.escape(span)}</p>\n{body}"
        f"<p>{note}</p>\n</body>\n</html>\n"
    )


def _table(caption: str, names: Sequence[str], rows: Sequence[tuple[list[str], Count]]) -> str:
    def line(tag: str, texts: Sequence[str], numbers: Sequence[str]) -> str:
        cells = [f"<{tag}>{html.escape(text)}</{tag}>" for text in texts]
        cells += [f'<{tag} class="n">{number}</{tag}>' for number in numbers]
        return f"<tr>{''.join(cells)}</tr>\n"

    head = line("th", names, ("Compliant", "Violations", "Compliance"))
    lines = [line("td", texts, (str(c.compliant), str(c.violations), f"{percent(c)} %")) for texts, c in rows]
    return f"<table>\n<caption>{html.escape(caption)}</caption>\n{head}{''.join(lines)}</table>\n"


def _harmless(name: str) -> str:
    """Keeps a spreadsheet from taking a name for a formula."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@") else name
