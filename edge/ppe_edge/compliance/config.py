"""Settings of compliance over time."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ComplianceConfig(BaseModel):
    """How compliance is counted, kept and reported. The figures say how many, never who."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(True, description="Whether tracked objects with and without violation are counted.")
    keep_days: int = Field(365, ge=1, le=3660, description="Figures older than this are deleted.")
    report: Literal["day", "shift"] | None = Field(
        None,
        description="Sends a report after each day or shift to all sinks but notify and escalate; default: none.",
    )
