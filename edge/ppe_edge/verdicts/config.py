"""Settings of verdicts."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Frames = Literal["none", "blurred", "full"]


class VerdictsConfig(BaseModel):
    """Which frames are kept with alerts, so that verdicts become training data. None by default, since they may show people.

    Frames only: verdicts are messages, which are kept for `outbox.max_message_days`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    frames: Frames = Field(
        "none",
        description="none: no frames. blurred: with all heads pixelated. full: as the camera showed them, which training "
        "needs; the page shows them to operators only, and records each viewing.",
    )
    keep: int = Field(
        500,
        ge=1,
        le=100_000,
        description="Maximum number of frames; the oldest are deleted, also after outbox.max_message_days.",
    )
