"""Where the page is served: apart from `ppe_edge.web.server`, whose library is slow to load."""

import ipaddress
import socket

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from ppe_edge.errors import EdgeError


class WebConfig(BaseModel):
    """Where the page is served, and to whom."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(True, description="Whether to serve the page, /healthz, /readyz and /metrics.")
    host: str = Field("127.0.0.1", description="Address to listen on; anything but loopback needs a token.")
    port: int = Field(8080, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    token: SecretStr | None = Field(None, min_length=16, description="What a visitor must know; at least 16 characters.")

    @model_validator(mode="after")
    def _no_open_door(self) -> "WebConfig":
        if self.token is None and not is_loopback(self.host):
            raise ValueError(f"host {self.host} can be reached from other machines: set a token (16 characters or more)")
        return self


def listen(config: WebConfig) -> socket.socket:
    """Takes the address, so that nobody else can; whoever connects waits until the page is served.

    Raises:
        EdgeError: It cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while attempting")[0]  # which says the address once more
        raise EdgeError(
            f"web: cannot listen on {config.host}:{config.port} ({reason}): choose another web.port, or end what listens there"
        ) from error


def is_loopback(host: str) -> bool:
    """Whether an address or a name is this machine's own, and no other's."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
