"""Where people look at alerts and decide about them: what the page asks for and changes."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ppe_edge.delivery.alert_history import AlertHistory, PastAlert
from ppe_edge.delivery.messages import OTHER, Alert, AlertVerdict, Judgement, clip_name, utc
from ppe_edge.delivery.outbox.outbox import Outbox
from ppe_edge.errors import EdgeError
from ppe_edge.monitoring.telemetry import Telemetry
from ppe_edge.verdicts.frames import AlertFrames
from ppe_edge.verdicts.viewings import ViewingRecord
from ppe_yolo.core.contract import ModelContract

MAX_COMMENT = 500  # characters
_JOINERS = "\u200c\u200d"  # without them, Persian and Hindi are misspelled, and emoji fall apart


def _printable(text: str) -> str:
    return " ".join("".join(c if c.isprintable() or c in _JOINERS else " " for c in text).split())


class Decision(BaseModel):
    """What somebody decides about an alert; see `AlertVerdict`.

    `replaces` is the id of the verdict that they saw, None for none: if there is a later one that says something else, the
    decision is refused. If the field is absent, any verdict is replaced.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    verdict: Judgement | None = None
    actual: str | None = None
    acknowledged: bool = False
    comment: Annotated[str, Field(max_length=MAX_COMMENT), AfterValidator(_printable)] = ""
    replaces: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Decision":
        if self.actual is not None and self.verdict != "false_alarm":
            raise ValueError("actual: expected only with the verdict false_alarm")
        return self


class AlertDesk:
    """The alerts, their images and verdicts. Thread-safe.

    Args:
        history: The alerts.
        outbox: Stores and sends verdicts.
        frames: Frames of alerts.
        viewings: Records each viewing of a frame without pixelated heads.
        telemetry: Counts verdicts.
        contract: Returns the contract of the active model.
        topology: Returns the cameras and their rules.
        time_zone: Returns the name of the site's time zone; None if it has none.
        threshold: Returns the alarm threshold that now holds for the camera, rule and class of an alert; None if unknown.

    Attributes:
        history: The alerts.
        topology, threshold, time_zone: See above.
    """

    def __init__(
        self,
        *,
        history: AlertHistory,
        outbox: Outbox,
        frames: AlertFrames,
        viewings: ViewingRecord,
        telemetry: Telemetry,
        contract: Callable[[], ModelContract],
        topology: Callable[[], Mapping[str, Sequence[str]]],
        threshold: Callable[[Alert], float | None],
        time_zone: Callable[[], str | None],
    ) -> None:
        self.history, self.topology, self.threshold, self.time_zone = history, topology, threshold, time_zone
        self._outbox, self._frames, self._viewings = outbox, frames, viewings
        self._telemetry, self._contract = telemetry, contract
        # held from reading the verdict before until the training data of the new one is written
        self._deciding = threading.Lock()

    @property
    def contract(self) -> ModelContract:
        """Contract of the active model."""
        return self._contract()

    @property
    def trouble(self) -> str:
        """Why verdicts cannot be stored, in one line; empty if they can."""
        return self._outbox.trouble

    def causes(self) -> Mapping[str, str]:
        """Returns what may have caused a false alarm: the classes of the model and `OTHER`, with their display names."""
        contract = self.contract
        return {**{name: contract.display_name(name) for name in contract.class_names}, OTHER: "something else"}

    def decide(self, alert_id: str, decision: Decision) -> PastAlert | None:
        """Stores a decision, sends it to the sinks, and makes training data of it. A verdict also acknowledges the alert.

        A decision that is in force already, such as that of somebody whose answer was lost on the network, is not sent again.

        Returns:
            The alert as it is now; None if there is no such alert.

        Raises:
            EdgeError: The cause is unknown, somebody else has judged the alert, or the disk is full. Nothing has changed.
            OSError, UserError: The verdict is stored, but its training data could not be written.
        """
        with self._deciding:
            past = self.history.alert(alert_id)
            if past is None:
                return None
            alert = past.alert
            verdict = AlertVerdict(
                time=utc(time.time()),
                camera=alert.camera,
                violation=alert.violation,
                alert=alert.id,
                rule=alert.rule,
                verdict=decision.verdict,
                actual=decision.actual,
                acknowledged=decision.acknowledged or decision.verdict is not None,
                comment=decision.comment,
            )
            former = past.verdict
            is_new = former is None or former.model_copy(update={"id": verdict.id, "time": verdict.time}) != verdict
            if is_new:
                self._refuse_invalid(past, decision)
                self._outbox.put(verdict)
                self._telemetry.verdicts.labels(alert.camera, verdict.verdict or "open").inc()
            self._frames.apply(alert, verdict, keep_annotation=not is_new)
            return self.history.alert(alert_id)

    def _refuse_invalid(self, past: PastAlert, decision: Decision) -> None:
        causes = self.causes()
        if decision.actual is not None and decision.actual not in causes:
            raise EdgeError(item="actual", expected=f"one of {', '.join(causes)}", got=repr(decision.actual[:40]))
        if "replaces" in decision.model_fields_set and decision.replaces != (past.verdict and past.verdict.id):
            raise EdgeError("somebody else has judged this alert in the meantime", hint="look at it again, then decide")
        if self.trouble:
            raise EdgeError("the verdict cannot be stored: the disk is full", hint="free disk space on the box")

    def snapshot(self, alert_id: str) -> Path | None:
        """Returns the snapshot of an alert, a JPEG; None if there is none."""
        past = self.history.alert(alert_id)
        return None if past is None or past.alert.snapshot is None else self._outbox.snapshot_path(past.alert.snapshot.file)

    def clip(self, alert_id: str) -> Path | None:
        """Returns the clip of an alert, an MP4; None if there is none, not yet, or no longer."""
        return self._outbox.snapshot_path(clip_name(alert_id))

    def has_frame(self, alert: Alert) -> bool:
        """Whether the frame of an alert is kept."""
        return self._frames.find(alert) is not None

    def frame(self, alert_id: str, address: str) -> bytes | None:
        """Returns the frame of an alert as JPEG, after recording the viewing; None if there is none.

        Args:
            alert_id: The alert.
            address: Network address that asks for it.

        Raises:
            OSError: The viewing cannot be recorded, or the file cannot be read.
        """
        past = self.history.alert(alert_id)
        file = None if past is None else self._frames.find(past.alert)
        if file is None:
            return None
        self._viewings.add(alert_id, address)  # also of blurred frames: the setting may have changed since
        return file.read_bytes()
