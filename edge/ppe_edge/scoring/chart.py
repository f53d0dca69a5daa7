"""The score of videos as a drawing (SVG): what happened and what was reported, and what other settings would give."""

from collections.abc import Sequence
from html import escape

from ppe_edge.scoring.figures import Figures, VideoScore, figures_of
from ppe_edge.scoring.report import clock
from ppe_edge.scoring.sweep import Trial, front

WIDTH, LEFT, RIGHT = 960, 40, 920
ROW, GAP = 14, 46  # height of a violation, and space between two drawings
FOUND, MISSED, FALSE, IGNORED = "#2b8a3e", "#c92a2a", "#c92a2a", "#ced4da"
SWEEP_HEIGHT = 260


def draw(videos: Sequence[VideoScore], trials: Sequence[Trial]) -> str:
    """Returns an SVG image: a time line per video, and the trials of a sweep below them."""
    parts: list[str] = []
    top = 10
    for video in videos:
        lines, height = _time_line(video, top)
        parts += lines
        top += height + GAP
    if trials:
        parts += _trials(trials, figures_of(videos), top)
        top += SWEEP_HEIGHT + GAP
    size = f'width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}"'
    style = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n' + "\n".join(parts) + "\n</svg>\n"


def _time_line(video: VideoScore, top: int) -> tuple[list[str], int]:
    """Draws a video: a bar per violation, with its alerts, and a row for the alerts without one."""

    def x(seconds: float) -> float:
        return LEFT + (RIGHT - LEFT) * min(1.0, max(0.0, seconds / video.seconds))

    lines = [_text(LEFT, top + 12, f"{video.name}: violations with their alerts, false alerts in the last row")]
    y = top + 20
    for outcome in video.outcomes:
        start, end = x(outcome.event.start), x(outcome.event.end)
        colour = FOUND if outcome.alerts else MISSED
        lines.append(_bar(start, y + 2, end - start, ROW - 4, colour, f"line {outcome.event.line}"))
        lines += [_bar(x(alert.seconds) - 1.5, y, 3, ROW, "black", clock(alert.seconds)) for alert in outcome.alerts]
        y += ROW
    for alert in video.false_alerts:
        lines.append(_bar(x(alert.seconds) - 1.5, y, 3, ROW, FALSE, f"false: {clock(alert.seconds)}"))
    for alert in video.ignored_alerts:
        lines.append(_bar(x(alert.seconds) - 1.5, y, 3, ROW, IGNORED, f"ignored: {clock(alert.seconds)}"))
    y += ROW
    lines.append(f'<path d="M{LEFT} {y}H{RIGHT}" stroke="black"/>')
    lines += [_text(LEFT, y + 14, "0"), _text(RIGHT, y + 14, clock(video.seconds), "end")]
    return lines, y - top


def _trials(trials: Sequence[Trial], current: Figures, top: int) -> list[str]:
    """Draws false alerts per hour (to the right) against the share of violations that are found (upwards)."""
    most = max([*(t.figures.false_alerts_per_hour or 0.0 for t in trials), current.false_alerts_per_hour or 0.0, 1e-9])
    best = front(trials)

    def place(figures: Figures) -> tuple[float, float]:
        right = LEFT + (RIGHT - LEFT) * (figures.false_alerts_per_hour or 0.0) / most
        return right, top + 20 + (SWEEP_HEIGHT - 40) * (1.0 - (figures.found_share or 0.0))

    bottom = top + SWEEP_HEIGHT - 20
    lines = [
        _text(
            LEFT,
            top + 12,
            "found (0 to 100 %) against false alerts per hour; filled: no other setting is better; cross: as set",
        ),
        f'<path d="M{LEFT} {top + 20}V{bottom}H{RIGHT}" fill="none" stroke="black"/>',
        _text(RIGHT, bottom + 14, f"{most:.3g} per hour", "end"),
    ]
    for trial in trials:
        at_x, at_y = place(trial.figures)
        settings = ", ".join(f"{name} {value}" for name, value in trial.changes.items())
        fill = FOUND if trial in best else "white"
        circle = f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="4" fill="{fill}" stroke="{FOUND}">'
        lines.append(f"{circle}<title>{escape(settings)}</title></circle>")
    at_x, at_y = place(current)
    lines.append(f'<path d="M{at_x - 6:.1f} {at_y:.1f}h12m-6 -6v12" stroke="black" stroke-width="2"/>')
    return lines


def _bar(x: float, y: float, width: float, height: float, colour: str, title: str) -> str:
    size = f'x="{x:.1f}" y="{y:.1f}" width="{max(1.0, width):.1f}" height="{height:.1f}"'
    return f'<rect {size} fill="{colour}"><title>{escape(title)}</title></rect>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
