"""Counts tracked objects with and without a violation: each once, by most of the frames that show it."""

from dataclasses import dataclass, field

from ppe_edge.rules.votes import MIN_VOTES


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedTrack:
    """A tracked object as it counts for a rule.

    Attributes:
        rule: Name of the rule.
        zone: The zone in which it was seen most; None without zones.
        first_seen: When it was first seen, seconds.
        is_violation: Whether most frames show a violation; half of them is enough.
    """

    rule: str
    zone: str | None
    first_seen: float
    is_violation: bool


@dataclass(slots=True, kw_only=True)
class _Tally:
    first_seen: float
    violations: int = 0
    by_zone: dict[str | None, int] = field(default_factory=dict)


class Tallies:
    """The objects that a rule follows now.

    Args:
        rule: Name of the rule.
    """

    def __init__(self, rule: str) -> None:
        self._rule = rule
        self._tallies: dict[int, _Tally] = {}  # by track

    def add(self, track: int, now: float, zone: str | None, is_violation: bool) -> None:
        """Counts a frame that shows an object in a zone."""
        tally = self._tallies.get(track)
        if tally is None:
            tally = self._tallies[track] = _Tally(first_seen=now)
        tally.violations += is_violation
        tally.by_zone[zone] = tally.by_zone.get(zone, 0) + 1

    def end(self, present: set[int]) -> list[CountedTrack]:
        """Drops the objects whose tracks are no longer present; returns those that count."""
        return self._counted([self._tallies.pop(track) for track in list(self._tallies) if track not in present])

    def current(self) -> list[CountedTrack]:
        """Returns the objects that are still followed, as they would count now."""
        return self._counted(list(self._tallies.values()))

    def take_over(self, before: "Tallies") -> None:
        """Continues the objects of a rule before it was changed; they count once."""
        self._tallies, before._tallies = before._tallies, {}

    def _counted(self, tallies: list[_Tally]) -> list[CountedTrack]:
        return [
            CountedTrack(
                rule=self._rule,
                zone=max(tally.by_zone, key=lambda zone: tally.by_zone[zone]),
                first_seen=tally.first_seen,
                is_violation=2 * tally.violations >= frames,
            )
            for tally in tallies
            if (frames := sum(tally.by_zone.values())) >= MIN_VOTES  # fewer may be a false detection
        ]
