"""Settings of the rules."""

import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from ppe_edge.rules.geometry import area, crosses_itself
from ppe_edge.rules.schedule import check_date, check_week
from ppe_yolo.core.contract import ModelContract

Point = tuple[float, float]
Polygon = tuple[Point, ...]
Severity = Literal["info", "warning", "critical"]

DEFAULT_RULE = "default"  # name of the one rule of a camera without `rules`
DEFAULT_SEVERITY: Severity = "warning"
MIN_THRESHOLD = 0.05  # tracking hundreds of weaker detections in each frame would hold up all cameras
_ZONE_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,100}")  # a mail server refuses long lines
MIN_ZONE_AREA = 1e-6  # of the frame: about two pixels of a Full HD frame


def check_polygons(zones: Mapping[str, Polygon | None]) -> None:
    """Checks the names and the outlines of zones.

    Raises:
        ValueError: A name cannot be shown or sent; an outline has too few corners, lies outside of the frame, crosses itself or
            encloses nothing.
    """
    for name, corners in zones.items():
        if not _ZONE_NAME.fullmatch(name):  # an alert with half a character could not be stored
            raise ValueError(f"expected the name of a zone, 1 to 100 characters without line breaks, got {name[:40]!r}")
        if corners is None:
            continue
        if len(corners) < 3:
            raise ValueError(f"zone {name!r}: expected three corners or more, got {len(corners)}")
        if any(not 0.0 <= v <= 1.0 for corner in corners for v in corner):
            raise ValueError(f"zone {name!r}: expected corners as fractions of width and height, 0 to 1, got {list(corners)}")
        if crosses_itself(corners):
            raise ValueError(f"zone {name!r}: its outline crosses itself, or repeats a side: list its corners in order")
        if area(corners) < MIN_ZONE_AREA:
            raise ValueError(f"zone {name!r}: it encloses nothing, so the rule would never apply: move its corners apart")


def _names_to_zones(zones: Any) -> Any:
    """A list of names stands for zones of the camera."""
    if not isinstance(zones, list | tuple):
        return zones
    if not all(isinstance(zone, str) for zone in zones):
        raise ValueError("expected names of zones, in quotes if YAML may read them as numbers, or NAME: [CORNER, ...]")
    return dict.fromkeys(zones)


def one_or_more(texts: Any) -> Any:
    """Accepts a single text in place of a list."""
    return (texts,) if isinstance(texts, str) else texts


def _off_or_times(dates: Any) -> Any:
    """YAML reads `off` as false."""
    if not isinstance(dates, Mapping):
        return dates
    return {day: () if times is False or times == "off" else one_or_more(times) for day, times in dates.items()}


class RuleConfig(BaseModel):
    """What counts as a violation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(True, description="Whether the rule applies; a camera switches off a general rule with false.")
    violation_class: str = Field("none", description="Class that must not appear.")
    compliant_classes: Annotated[tuple[str, ...] | None, BeforeValidator(one_or_more)] = Field(
        None,
        description="Classes of the same object without the violation, such as helmet. The tracker follows an object from one "
        "to the other. Default: the classes that no rule of the camera uses otherwise.",
    )
    inside: str | None = Field(
        None, description="Only objects inside or near an object of this class count, such as a bare head inside a person."
    )
    without: str | None = Field(
        None,
        description="Only objects without an object of this class count, such as a person without a vest. It must lie inside "
        "the object; one that lies inside several belongs to the one that it overlaps most.",
    )
    worn_at: Literal["body", "head"] = Field(
        "body",
        description="Where the object of `without` must lie to count as worn: anywhere inside, or in the upper third, so that "
        "a helmet in a hand does not count.",
    )
    severity: Severity = Field(DEFAULT_SEVERITY, description="Severity of the alerts.")
    schedule: Annotated[tuple[str, ...] | None, BeforeValidator(one_or_more)] = Field(
        None,
        description="When the rule applies, in the site's time zone: 'Mon-Fri 06:00-18:00', 'Sat,Sun 08:00-12:00', 'daily "
        "22:00-06:00'; default: always. Also always while the clock of the box is not set.",
    )
    exceptions: Annotated[dict[date, tuple[str, ...]], BeforeValidator(_off_or_times)] = Field(
        default_factory=dict,
        description="Date -> off, or times such as 08:00-12:00 that replace those of the schedule that start on this date.",
    )
    alarm_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Minimum score of a violation; default: the threshold of the model. "
        f"Below {MIN_THRESHOLD:g}, it counts as {MIN_THRESHOLD:g}: weaker detections are noise.",
    )
    seconds: float | None = Field(
        1.5,
        gt=0,
        le=3600,
        description="Length of the vote window. A violation starts when the share `frames` / `of` of its frames, by "
        "default three quarters, show one, and ends when that share do not. Where frames are rare, the window stretches to "
        "the last three frames in which the head was detected: at 1 frame per second, a violation starts with the third frame.",
    )
    frames: int = Field(6, ge=1, le=1000, description="Frames out of `of` that start or end a violation.")
    of: int = Field(
        8, ge=1, le=1000, description="See `frames`. With `seconds: null`, also the length of the window in frames."
    )
    hysteresis: float = Field(
        0.7,
        gt=0,
        le=1,
        description="During a violation, the threshold is multiplied by this factor, so that it does not flicker.",
    )
    cooldown_s: float = Field(
        10.0, ge=0, le=86400, description="Minimum number of seconds between two alerts for the same head."
    )
    zones: Annotated[dict[str, Polygon | None], BeforeValidator(_names_to_zones)] = Field(
        default_factory=dict,
        description="Names of zones of the camera, or name -> corners (x, y) as fractions of width and height. Without zones, "
        "the whole frame counts.",
    )

    @field_validator("zones")
    @classmethod
    def _polygons(cls, zones: dict[str, Polygon | None]) -> dict[str, Polygon | None]:
        check_polygons(zones)
        return zones

    @field_validator("schedule")
    @classmethod
    def _readable(cls, schedule: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if schedule is not None:
            check_week(schedule)
        return schedule

    @field_validator("exceptions")
    @classmethod
    def _readable_dates(cls, exceptions: dict[date, tuple[str, ...]]) -> dict[date, tuple[str, ...]]:
        for day, times in exceptions.items():
            try:
                check_date(times)
            except ValueError as error:
                raise ValueError(f"{day}: {error}") from None
        return exceptions

    @model_validator(mode="after")
    def _consistent(self) -> "RuleConfig":
        if not self.of / 2 < self.frames <= self.of:
            raise ValueError(f"frames must be more than half of `of` and at most `of`, got {self.frames} of {self.of}")
        if self.violation_class in (self.inside, self.without):
            raise ValueError("inside and without name another class than violation_class")
        if self.without is not None and self.compliant_classes:
            raise ValueError("compliant_classes and without exclude each other: `without` names what a compliant object has")
        if self.violation_class in (self.compliant_classes or ()):
            raise ValueError(f"{self.violation_class} cannot be both violation_class and one of compliant_classes")
        return self

    @property
    def has_schedule(self) -> bool:
        """Whether the rule does not always apply."""
        return self.schedule is not None or bool(self.exceptions)

    def in_words(self, contract: ModelContract, time_zone: str | None) -> str:
        """Returns what counts as a violation, where and when: "bare head in zone gate, Mon-Fri 06:00-18:00 Europe/Berlin"."""
        what = contract.display_name(self.violation_class)
        if self.inside is not None:
            what += f" inside {contract.display_name(self.inside)}"
        if self.without is not None:
            what += f" without {contract.display_name(self.without)}" + (" at the head" if self.worn_at == "head" else "")
        zones = list(self.zones)
        where = f"in zone{'s' if len(zones) > 1 else ''} {' or '.join(zones)}" if zones else "anywhere"
        parts = [f"{what} {where}"]
        if self.has_schedule:
            parts.append(f"{', '.join(self.schedule or ('always',))} {time_zone or 'UTC'}")
        parts += [f"on {day} {', '.join(times) or 'off'}" for day, times in sorted(self.exceptions.items())]
        if self.severity != DEFAULT_SEVERITY:
            parts.append(self.severity)
        return ", ".join(parts)

    def over(self, general: "RuleConfig") -> "RuleConfig":
        """Returns the rule whose settings are those that this one sets, and otherwise those of a general one.

        Raises:
            ValueError: They contradict each other.
        """
        own = {name: getattr(self, name) for name in self.model_fields_set}
        return RuleConfig.model_validate({**{name: getattr(general, name) for name in general.model_fields_set}, **own})

    def with_zones_of(self, zones: Mapping[str, Polygon]) -> "RuleConfig":
        """Returns the rule with the outlines of the zones that it names.

        Raises:
            ValueError: A zone does not exist.
        """
        for name, corners in self.zones.items():
            if corners is None and name not in zones:
                expected = f"one of {', '.join(zones)}" if zones else "an outline, since the camera has no `zones`"
                raise ValueError(f"no such zone {name!r}, expected {expected}")
        return self.model_copy(update={"zones": {n: zones[n] if c is None else c for n, c in self.zones.items()}})
