"""Counts what the outbox dropped or could not store, and turns the counts into messages."""

import time
from collections import Counter

from ppe_edge.common.clock import is_set
from ppe_edge.delivery.messages import StorageEvent, StorageProblem, utc

_INTERVAL_S = 60.0  # a problem that persists is not reported more often than this


class StorageReport:
    """Storage problems since the start.

    Attributes:
        totals: Number of each problem since the start.
    """

    def __init__(self) -> None:
        self.totals: Counter[StorageProblem] = Counter()
        self._unreported: Counter[StorageProblem] = Counter()
        self._details: dict[StorageProblem, str] = {}
        self._next = 0.0

    def count(self, problem: StorageProblem, number: int = 1, detail: str = "") -> None:
        """Adds to the number of a problem; its next event carries the latest `detail`."""
        if number:
            self._details[problem] = detail
            self.totals[problem] += number
            self._unreported[problem] += number

    def due(self, now: float) -> list[StorageEvent]:
        """Returns the events to report now (seconds, steady); call `mark_reported` for each that was stored."""
        if not self._unreported or now < self._next:
            return []
        self._next = now + _INTERVAL_S
        wall = time.time()
        return [
            StorageEvent(
                time=utc(wall),
                event=problem,
                count=number,
                detail=self._details.get(problem, ""),
                time_uncertain=not is_set(wall),
            )
            for problem, number in self._unreported.items()
        ]

    def mark_reported(self, event: StorageEvent) -> None:
        """Forgets what an event has reported."""
        self._unreported[event.event] -= event.count
        if self._unreported[event.event] <= 0:
            del self._unreported[event.event]
