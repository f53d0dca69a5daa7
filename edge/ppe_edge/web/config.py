"""Settings of the web page. Apart from `ppe_edge.web.server`, which imports a library that is slow to load."""

import errno
import ipaddress
import logging
import socket

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from ppe_edge.errors import EdgeError, NotReadyError

_FREEBIND = 15  # IP_FREEBIND of Linux, which Python does not name

_log = logging.getLogger(__name__)


class WebConfig(BaseModel):
    """Where the page is served, and who may see it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(True, description="Whether to serve the page, /healthz, /readyz and /metrics.")
    host: str = Field("127.0.0.1", description="Address to listen on; any address but loopback requires a token.")
    port: int = Field(8080, ge=0, le=65535, description="TCP port; 0 chooses a free one.")
    token: SecretStr | None = Field(
        None,
        min_length=16,
        description="Token of operators, who see everything and decide about alerts; at least 16 characters. Without a token, "
        "everybody on this machine is an operator.",
    )
    viewer_token: SecretStr | None = Field(
        None, min_length=16, description="Token of viewers, who see alerts and live images and change nothing. Default: none."
    )

    @model_validator(mode="after")
    def _token_if_exposed(self) -> "WebConfig":
        if self.viewer_token is not None and self.token in (None, self.viewer_token):
            raise ValueError("viewer_token needs a token for operators, which must be another one")
        if self.token is None and not is_loopback(self.host):
            raise ValueError(f"host {self.host} can be reached from other machines: set a token (16 characters or more)")
        return self


def listen(config: WebConfig) -> socket.socket:
    """Binds the address, so that no other process can; clients that connect now wait until the page is served.

    Binds even an address that no interface has yet, so that the box starts without network.

    Raises:
        EdgeError: The address cannot be bound; `NotReadyError` if a name cannot be resolved.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        try:
            return socket.create_server((config.host, config.port), family=family)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
        listener.bind((config.host, config.port))
        listener.listen()
        hint = "the page is reachable once one has it; if none ever does, correct web.host"
        _log.warning("web.host: no network interface has the address %s yet: %s", config.host, hint)
        return listener
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while attempting")[0]  # which repeats the address
        if (error.errno or 0) < 0:  # EAI_NONAME and the like
            hint = "write an IP address, or let the network resolve the name"
            raise NotReadyError(setting="web.host", problem=f"{config.host}: {reason}", hint=hint) from error
        raise EdgeError(
            setting="web",
            problem=f"cannot listen on {config.host}:{config.port} ({reason})",
            hint="choose another web.port, or stop the process that listens there",
        ) from error


def is_loopback(host: str) -> bool:
    """Whether an address or a name can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
