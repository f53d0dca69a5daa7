"""Settings of the violation rule."""

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ppe_edge.rules.geometry import crosses_itself

Point = tuple[float, float]


class RuleConfig(BaseModel):
    """What counts as a violation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    violation_class: str = Field("none", description="Class that must not appear.")
    alarm_threshold: float | None = Field(
        None, ge=0, le=1, description="Minimum score of a violation; default: the threshold of the model."
    )
    seconds: float | None = Field(
        1.5,
        gt=0,
        le=3600,
        description="Length of the vote window. Enough frames in it that show a violation start it; enough that do not end it. "
        "Where frames are rare, the window stretches to the last three frames in which the head was detected: at 1 frame per "
        "second, a violation starts with the third frame.",
    )
    frames: int = Field(6, ge=1, le=1000, description="Enough frames means this many ...")
    of: int = Field(
        8, ge=1, le=1000, description="... of this many. With `seconds: null`, also the length of the window in frames."
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
    zones: dict[str, tuple[Point, ...]] = Field(
        default_factory=dict,
        description="Name -> corners (x, y) as fractions of width and height. Without zones, the whole frame counts.",
    )

    @field_validator("zones")
    @classmethod
    def _polygons(cls, zones: dict[str, tuple[Point, ...]]) -> dict[str, tuple[Point, ...]]:
        for name, corners in zones.items():
            if len(corners) < 3:
                raise ValueError(f"zone {name!r}: expected three corners or more, got {len(corners)}")
            if any(not 0.0 <= v <= 1.0 for corner in corners for v in corner):
                raise ValueError(
                    f"zone {name!r}: expected corners as fractions of width and height, 0 to 1, got {list(corners)}"
                )
            if crosses_itself(corners):
                raise ValueError(f"zone {name!r}: its outline crosses itself: list the corners in the order around the zone")
        return zones

    @model_validator(mode="after")
    def _more_than_half(self) -> "RuleConfig":
        if not self.of / 2 < self.frames <= self.of:
            raise ValueError(f"frames must be more than half of `of` and at most `of`, got {self.frames} of {self.of}")
        return self
