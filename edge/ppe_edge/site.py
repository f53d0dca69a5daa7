"""Settings of the site that the box watches."""

import difflib
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ppe_edge.rules.schedule import check_week


class SiteConfig(BaseModel):
    """What all cameras of the box have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time_zone: str | None = Field(
        None, description="Time zone of schedules and reports by its IANA name, such as Europe/Berlin; required by a schedule."
    )

    shifts: dict[str, str] = Field(
        default_factory=dict, description="Shifts of every day, for compliance: name -> times, such as 06:00-14:00."
    )

    @field_validator("shifts")
    @classmethod
    def _apart(cls, shifts: dict[str, str]) -> dict[str, str]:
        if shifts:
            check_week([f"daily {times}" for times in shifts.values()])
        return shifts

    @field_validator("time_zone")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                ZoneInfo(name)
            except (LookupError, ValueError, OSError):  # the last for the name of a folder, such as Europe
                known = sorted(available_timezones())
                if not known:
                    raise ValueError("this machine has no time zones: install the package tzdata") from None
                by_lower = {zone.lower(): zone for zone in known}
                nearest = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.7)
                hint = f"did you mean {by_lower[nearest[0]]}?" if nearest else "expected a name such as Europe/Berlin or UTC"
                raise ValueError(f"no such time zone {name[:40]!r}, {hint}") from None
        return name

    @property
    def zone(self) -> ZoneInfo:
        """The time zone; UTC if none is set."""
        return ZoneInfo(self.time_zone or "UTC")
