"""Sends alerts to people: e-mail, Teams, Slack, Telegram, SMS and about a hundred more services, through Apprise.

Alerts and their clips only; the other messages go to the other sinks. With several addresses, a notification that one of them
does not take is tried again for this one alone.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from ppe_edge.delivery.messages import Alert, AlertClip, Message
from ppe_edge.delivery.sinks.base import SinkFailed
from ppe_edge.errors import EdgeError
from ppe_edge.rules.config import DEFAULT_RULE, DEFAULT_SEVERITY
from ppe_edge.rules.schedule import Schedule, check_week

if TYPE_CHECKING:
    import apprise

URLS_VARIABLE = "PPE_EDGE__SINKS__NOTIFY__URLS"
_TYPES = {"info": "info", "warning": "warning", "critical": "failure"}  # severity -> what services colour by
_EXAMPLE: Mapping[str, object] = {
    "object": "bare head",
    "camera": "gate",
    "rule": "default",
    "severity": "warning",
    "zone": "",
    "score": 0.5,
    "time": datetime(2027, 1, 1),
    "left_out": 0,
    "alert": "00000000-0000-0000-0000-000000000000",
}
_FIELDS = ", ".join(f"{{{name}}}" for name in _EXAMPLE)


class NotifySinkConfig(BaseModel):
    """Alerts are sent to people, by e-mail and through the services that Apprise knows."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    urls: SecretStr = Field(
        description="Addresses as Apprise writes them (mailtos://USER:PASSWORD@HOST?to=..., tgram://..., ...), separated by "
        f"spaces. They hold passwords: only the environment variable {URLS_VARIABLE} may set them."
    )
    title: str = Field("{severity}: {object} at {camera}", description=f"Title, with the fields {_FIELDS}.")
    body: str = Field(
        "{time:%Y-%m-%d %H:%M:%S}, camera {camera} {zone}: {object}, score {score:.0%}. "
        "Alerts left out since the last notification: {left_out}",
        description="Text, with the same fields; {time:%H:%M} formats one.",
    )
    attach_snapshot: bool = Field(True, description="Whether to attach the snapshot; the clip, if there is one, follows.")
    min_interval_s: float = Field(
        60.0,
        ge=0,
        description="Alerts of the same camera and rule that follow a notification within this many seconds are left out.",
    )
    quiet_hours: tuple[str, ...] = Field(
        (), description="When no notifications are sent, such as daily 20:00-06:00; needs site.time_zone. Alerts are left out."
    )

    @field_validator("title", "body")
    @classmethod
    def _template(cls, text: str) -> str:
        try:
            used = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
            if unknown := used - _EXAMPLE.keys():
                raise ValueError(f"no such field {sorted(unknown)[0]!r}")
            text.format_map(_EXAMPLE)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"expected a text with fields such as {_FIELDS}, got an error: {error}") from None
        return text

    @field_validator("quiet_hours")
    @classmethod
    def _week(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        if entries:
            check_week(entries)
        return entries


class Site(NamedTuple):
    """What a notification tells beyond the message: the names and times of the site.

    Attributes:
        zone: Time zone of the site.
        display_name: Returns how people call a class.
    """

    zone: ZoneInfo
    display_name: Callable[[str], str]


class NotifySink:
    """Sends alerts as notifications.

    Args:
        config: Addresses and texts.
        site: Returns the site; it may change while the box runs.

    Raises:
        EdgeError: Apprise does not know an address.

    Attributes:
        setting: The setting with the addresses.
    """

    setting = "sinks.notify.urls"

    def __init__(self, config: NotifySinkConfig, site: Callable[[], Site]) -> None:
        import apprise  # slow to import, and only needed here

        # its log, and that of the library below, would show tokens that are part of an address
        logging.getLogger("apprise").disabled = True
        logging.getLogger("urllib3").setLevel(logging.WARNING)
        self._config, self._site = config, site
        asset = apprise.AppriseAsset(app_id="ppe_edge", app_desc="ppe_edge", async_mode=False)
        self._services: list[apprise.NotifyBase] = []
        for number, url in enumerate(apprise.utils.parse.parse_urls(config.urls.get_secret_value()), 1):
            service = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
            if service is None:
                raise EdgeError(
                    setting=self.setting,
                    problem=f"Apprise does not know the kind of address {number}",
                    hint="try it: apprise --body test 'ADDRESS'",
                )
            self._services.append(service)
        if not self._services:
            raise EdgeError(setting=self.setting, expected="addresses such as mailtos://...", got="none")
        self._done: dict[str, set[int]] = {}  # alert -> the addresses that have taken it, while others have not
        self._last: dict[tuple[str, str], float] = {}  # (camera, rule) -> time of the latest alert that was sent
        self._left_out: Counter[tuple[str, str]] = Counter()
        self._without_clip: deque[str] = deque(maxlen=1000)  # ids of the latest alerts that were left out

    def send(self, message: Message, snapshot: Path | None) -> None:
        """Sends one alert, or its clip, to all addresses; see `Sink.send`. Does nothing for other messages."""
        if not isinstance(message, Alert | AlertClip):
            return
        place = message.camera, message.rule or DEFAULT_RULE
        if isinstance(message, AlertClip):
            if snapshot is None or message.alert in self._without_clip or not self._config.attach_snapshot:
                return
        elif self._is_left_out(message, place):
            self._left_out[place] += 1
            self._without_clip.append(message.id)
            return
        done = self._done.setdefault(message.id, set())
        fields = self._fields(message, place)
        attached = [str(snapshot)] if snapshot is not None and self._config.attach_snapshot and snapshot.is_file() else None
        for number, service in enumerate(self._services, 1):
            if number not in done and self._notify(service, fields, attached):
                done.add(number)
        failed = [f"{number} ({s.service_name})" for number, s in enumerate(self._services, 1) if number not in done]
        if failed:
            raise SinkFailed(
                f"address {', '.join(failed)} of {self.setting} takes no notification: check the network and the address",
                outcome_unknown=True,
                reached=True,
            )
        del self._done[message.id]
        if isinstance(message, Alert):
            self._last[place] = message.time.timestamp()
            del self._left_out[place]

    def check(self) -> str:
        """Names the services; see `Sink.check`. Whether they can be reached is known after a message only."""
        return f"sends to {', '.join(str(service.service_name) for service in self._services)}, not tried"

    def close(self) -> None:
        """Does nothing: a connection is opened per notification."""

    def _is_left_out(self, alert: Alert, place: tuple[str, str]) -> bool:
        # judged by the time of the alert: one that waited for the network until now is sent
        time = alert.time.timestamp()
        if 0 <= time - self._last.get(place, float("-inf")) < self._config.min_interval_s:
            return True
        return bool(self._config.quiet_hours) and Schedule(self._config.quiet_hours, {}, self._site().zone).is_on(time)

    def _fields(self, alert: Alert | AlertClip, place: tuple[str, str]) -> dict[str, object]:
        site = self._site()
        return {
            "object": site.display_name(alert.class_name),
            "camera": alert.camera,
            "rule": place[1],
            "severity": alert.severity or DEFAULT_SEVERITY,
            "zone": alert.zone or "",
            "score": alert.score,
            "time": alert.time.astimezone(site.zone),
            "left_out": self._left_out[place],
            "alert": alert.alert if isinstance(alert, AlertClip) else alert.id,
        }

    def _notify(self, service: "apprise.NotifyBase", fields: Mapping[str, object], attached: list[str] | None) -> bool:
        import apprise

        done = apprise.Apprise(service).notify(
            title=self._config.title.format_map(fields),
            body=self._config.body.format_map(fields),
            notify_type=_TYPES[str(fields["severity"])],
            body_format="text",
            attach=attached,
        )
        return bool(done)
