"""Settings of the outbox."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class OutboxConfig(BaseModel):
    """Limits of the outbox. The oldest snapshots are dropped first; alerts only when no snapshot is left."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_mb: float = Field(default=1000.0, gt=0, description="Maximum size of snapshots and messages together, in megabytes.")
    max_snapshot_days: float = Field(default=30.0, gt=0, description="Snapshots older than this are deleted.")
    max_message_days: float = Field(
        default=90.0, gt=0, description="Messages older than this are dropped, whether they were delivered or not."
    )
    keep_delivered: int = Field(
        default=200,
        ge=0,
        description="Number of delivered messages kept for the web page, in addition to those about alerts, which stay for "
        "max_message_days; 0 keeps none of either.",
    )
    max_held: int = Field(default=1000, ge=1, description="Maximum number of messages kept in memory while the disk is full.")

    @model_validator(mode="after")
    def _snapshots_go_first(self) -> "OutboxConfig":
        if self.max_snapshot_days > self.max_message_days:
            raise ValueError("max_snapshot_days must not exceed max_message_days: snapshots are dropped before alerts")
        return self
