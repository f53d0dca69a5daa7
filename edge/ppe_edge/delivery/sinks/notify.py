"""Sends messages to people: e-mail, Teams, Slack, Telegram, SMS and about a hundred more services, through Apprise.

Alerts, their clips, and cameras that need attention; the other messages go to the other sinks only. Each address, and each
recipient of an e-mail, is a sink of its own: a failing address neither delays the others nor causes duplicates for them.
"""

import copy
import hashlib
import logging
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from ppe_edge.common.clock import is_set
from ppe_edge.delivery.messages import Alert, AlertClip, CameraEventMessage, Message
from ppe_edge.delivery.sinks.base import SinkFailed, SinkLater, SinkRefused
from ppe_edge.errors import EdgeError
from ppe_edge.rules.config import DEFAULT_RULE, DEFAULT_SEVERITY
from ppe_edge.rules.schedule import Schedule, check_week

if TYPE_CHECKING:
    import apprise

URLS_VARIABLE = "PPE_EDGE__SINKS__NOTIFY__URLS"
# how Apprise logs what a web server or a mail server answers, and that it was not reached
_ANSWER = re.compile(r"error=(\d{3})\b|\((\d{3}), b")
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
# no network, nobody listens, no such host, no such name; and what happens before a mail server gets a mail
_NOT_REACHED = re.compile(
    rf"\[Errno (?:101|111|113|-\d)\]|\(connect timeout=|{_UNTRUSTED}|^Connection error while submitting email"
)
_REFUSED_IN_PART = "SMTP recipient "  # if all are refused, the log shows an answer instead
_LOGIN = {401, 403, 535}
_UNKNOWN = {404, 550}
_TOO_LARGE = {413, 552}
_BUSY = {421, 429, 503, 504}
_DEFERRED = {450, 451, 452}  # by a mail server, such as each first mail of an unknown sender (greylisting); others may pass
_DEFERRED_S = 60.0
_PAUSES_S = {421: 60.0, 535: 300.0}  # mail servers lock out clients that try wrong passwords
# Unless the address sets rto or, for a mail, cto. A slow line or a spam filter may need more than Apprise's own 4 and 15 s: the
# receiver would get the notification, and the box would send it again each time.
_TIMEOUT_S = 60.0
_OF_CAMERAS = {"needs_attention": "needs attention", "works_again": "works again"}  # event -> its words in the title
_CLOCK_STEP_S = 60.0  # a clock that is set by less does not make an event older than the box
_MAX_WAIT_S = 900.0  # until quiet hours are judged again: the clock may be set meanwhile
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
    repeated: str = Field(
        "Possibly repeated: ", description="Put before the title of a notification that may have arrived already."
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
            used = {name: form for _, name, form, _ in Formatter().parse(text) if name is not None}
            if unknown := used.keys() - _EXAMPLE.keys():
                raise ValueError(f"no such field {sorted(unknown)[0]!r}")
            if any("{" in (form or "") for form in used.values()):
                # whether they are valid depends on the alert
                raise ValueError("nested fields such as {score:{zone}} are not supported")
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

    @model_validator(mode="after")
    def _some_text(self) -> "NotifySinkConfig":
        if not f"{self.title}{self.body}".format_map(_EXAMPLE).strip():
            raise ValueError("title and body are both empty for an alert without a zone: add some text or another field")
        return self


class Site(NamedTuple):
    """What a notification tells beyond the message: the names and times of the site.

    Attributes:
        zone: Time zone of the site.
        display_name: Returns how people call a class.
    """

    zone: ZoneInfo
    display_name: Callable[[str], str]


class Address(NamedTuple):
    """Where the notifications of one sink go.

    Attributes:
        service: What sends them.
        setting: The setting that holds the address.
        number: Position of the address in the setting, from 1.
        recipient: Position of the recipient in the address of an e-mail with several, from 1.
    """

    service: "apprise.NotifyBase"
    setting: str
    number: int
    recipient: int | None = None

    def __str__(self) -> str:
        return f"address {self.number} of {self.setting}{self._of_recipient()} ({self.service.service_name})"

    def in_short(self) -> str:
        """Names the service first, without the setting."""
        return f"{self.service.service_name} (address {self.number}{self._of_recipient()})"

    def _of_recipient(self) -> str:
        return "" if self.recipient is None else f", recipient {self.recipient}"


def open_addresses(urls: SecretStr, sink: str) -> dict[str, Address]:
    """Opens addresses.

    Args:
        urls: See `NotifySinkConfig.urls`.
        sink: `notify` or `escalate`.

    Returns:
        Name of the sink, such as `notify-0a1b2c3d` -> address. It depends on neither the other addresses nor on a password; a
        token is a part of the address.

    Raises:
        EdgeError: Apprise does not know an address, or one of its recipients.
    """
    import apprise  # slow to import, and only needed here

    _hide_logs()
    setting = f"sinks.{sink}.urls"
    addresses, alike = dict[str, Address](), Counter[str]()
    for number, url in enumerate(apprise.utils.parse.parse_urls(urls.get_secret_value()), 1):
        for address in _open(url, setting, number):
            name = f"{sink}-{hashlib.sha256(_identity(address, url).encode()).hexdigest()[:8]}"
            alike[name] += 1
            addresses[name if alike[name] == 1 else f"{name}-{alike[name]}"] = address
    if not addresses:
        raise EdgeError(setting=setting, expected="addresses such as mailtos://...", got="none")
    return addresses


def _hide_logs() -> None:
    """Keeps the records of Apprise, and of the library below it, from the log: they show tokens that are part of an address."""
    log = logging.getLogger("apprise")
    log.propagate = False
    log.setLevel(logging.DEBUG)  # for `_failure`
    if not log.handlers:
        log.addHandler(logging.NullHandler())
    logging.getLogger("urllib3").setLevel(logging.WARNING)


def _open(url: str, setting: str, number: int) -> list[Address]:
    """Opens one address: of an e-mail, one per recipient."""
    import apprise
    from apprise.plugins.email import NotifyEmail

    try_it = "try it: apprise --body test 'ADDRESS'"
    asset = apprise.AppriseAsset(app_id="ppe_edge", app_desc="ppe_edge", async_mode=False)
    with apprise.LogCapture(level=logging.WARNING) as warnings:
        service = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if service is None:
        raise EdgeError(setting=setting, problem=f"Apprise does not know the kind of address {number}", hint=try_it)
    is_mail = isinstance(service, NotifyEmail)
    vars(service).setdefault("socket_read_timeout", _TIMEOUT_S)
    if is_mail:  # a mail has one timeout for connecting and reading
        vars(service).setdefault("socket_connect_timeout", _TIMEOUT_S)
    if is_mail and not _are_mail_addresses(service.parse_url(url)):
        raise EdgeError(
            setting=setting,
            problem=f"address {number}: a recipient in to=, cc=, bcc= or reply= is not an e-mail address",
            hint="correct it, for example ?to=anna@example.org,ben@example.org",
        )
    if "Dropped invalid" in warnings.getvalue():
        problem = f"address {number}: {service.service_name} cannot have such a recipient"
        raise EdgeError(setting=setting, problem=problem, hint=try_it)
    return _by_recipient(service, setting, number) if is_mail else [Address(service, setting, number)]


def _identity(address: Address, url: str) -> str:
    """What stays the same if other addresses, other recipients or the password change."""
    from apprise.plugins.email import NotifyEmail

    mail = address.service
    if isinstance(mail, NotifyEmail):
        # without the parameters, whose defaults change with Apprise
        return f"{mail.url(privacy=True).partition('?')[0]} {mail.smtp_host}:{mail.port}"
    return re.sub("://([^/@:]*):[^/@]*@", r"://\1@", url)


def _are_mail_addresses(parsed: Mapping[str, Any]) -> bool:
    """Whether all recipients are e-mail addresses. Apprise drops others, some without a warning.

    Args:
        parsed: The parts of an address, as Apprise parses them.
    """
    from apprise.utils.parse import is_email, parse_emails

    for recipients in [*parsed["targets"], *(parsed.get(kind, "") for kind in ("cc", "bcc", "reply_to"))]:
        mails = parse_emails(recipients)
        for mail in mails:
            recipients = recipients.replace(mail, "", 1)
        if recipients.strip(" ,;") or not all(is_email(mail) for mail in mails):
            return False
    return not any("@" in name for name in parsed["qsd"])  # what follows a semicolon is read as another parameter


def _by_recipient(mail: "apprise.NotifyBase", setting: str, number: int) -> list[Address]:
    """Returns an address per recipient: one that is refused must not make the others get the mail again."""
    addresses = []
    for recipient, target in enumerate(mail.targets, 1):
        service = copy.copy(mail)
        service.targets = [target]
        # no pause of 5.5 s between mails: a server that limits the rate answers so, and the mail is retried
        service.request_rate_per_sec = 0
        addresses.append(Address(service, setting, number, recipient if len(mail.targets) > 1 else None))
    return addresses


class NotifySink:
    """Sends notifications to one address.

    Args:
        config: Texts and limits.
        site: Returns the site; it may change while the box runs.
        address: Where they go; see `open_addresses`.
        clock: Returns UTC epoch seconds.
    """

    def __init__(
        self, config: NotifySinkConfig, site: Callable[[], Site], address: Address, clock: Callable[[], float] = time.time
    ) -> None:
        self._config, self._site, self._address, self._clock = config, site, address, clock
        self._last: dict[tuple[str, str], float] = {}  # (camera, rule) -> time of the latest alert that was sent
        self._left_out: Counter[tuple[str, str]] = Counter()
        self._started = time.monotonic()
        self._waiting: dict[str, str] = {}  # camera -> id of its latest event that is not sent yet
        self._replaced: set[str] = set()  # ids of events that a later one of the same camera replaces, and that are not sent
        self._without_clip: deque[str] = deque(maxlen=1000)  # ids of the latest alerts that were left out

    def send(self, message: Message, snapshot: Path | None) -> None:
        """Sends an alert, its clip, or that a camera needs attention; see `Sink.send`. Does nothing for other messages."""
        if isinstance(message, CameraEventMessage) and message.event in _OF_CAMERAS:
            self._notify_of_camera(message)
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
        attached = snapshot if snapshot is not None and self._config.attach_snapshot and snapshot.is_file() else None
        fields = self._fields(message, place)
        title, body = self._config.title.format_map(fields), self._config.body.format_map(fields)
        self._notify(message, title, body, str(fields["severity"]), attached)
        if isinstance(message, Alert):
            self._last[place] = message.time.timestamp()
            del self._left_out[place]

    def check(self) -> str:
        """Names the service; see `Sink.check`. Whether it can be reached is known after a message only."""
        return f"{self._address.in_short()}: configured, nothing was sent"

    def close(self) -> None:
        """Does nothing: a connection is opened per notification."""

    def _is_left_out(self, alert: Alert, place: tuple[str, str]) -> bool:
        # judged by the time of the alert: one that waited for the network until now is sent
        at = alert.time.timestamp()
        if 0 <= at - self._last.get(place, float("-inf")) < self._config.min_interval_s:
            return True
        # without a correct clock, quiet hours cannot be judged: send the alert
        return not alert.time_uncertain and self._quiet_until(at) is not None

    def _quiet_until(self, at: float) -> float | None:
        """Returns when the quiet hours of a time end, or at midnight continue; None if there are none at that time."""
        if not self._config.quiet_hours:
            return None
        schedule = Schedule(self._config.quiet_hours, {}, self._site().zone)
        return schedule.changes_at(at) if schedule.is_on(at) else None

    def _notify_of_camera(self, event: CameraEventMessage) -> None:
        """Sends the latest state of a camera, after quiet hours.

        An event that waits is replaced by the next one of the camera, so that the last message is true. A failure from before
        the start of the box is not sent: if it lasts, it is reported again.
        """
        failed, now = event.event == "needs_attention", self._clock()
        age, uptime = now - event.time.timestamp(), time.monotonic() - self._started
        is_old = failed and not event.time_uncertain and age > uptime + _CLOCK_STEP_S
        if is_old or event.id in self._replaced:
            self._replaced.discard(event.id)
            return
        waiting = self._waiting.get(event.camera, event.id)
        if waiting != event.id:
            self._replaced.add(waiting)
        self._waiting[event.camera] = event.id
        quiet_until = self._quiet_until(now) if is_set(now) else None
        if quiet_until is not None:
            raise SinkLater(min(quiet_until - now, _MAX_WAIT_S))
        at = f"{event.time.astimezone(self._site().zone):%Y-%m-%d %H:%M:%S}"
        mark = " (the clock of the box was not set)" if event.time_uncertain else ""
        title = f"Camera {event.camera} {_OF_CAMERAS[event.event]}"
        body = f"{at}{mark}, camera {event.camera}: {event.detail}"
        self._notify(event, title, body, "warning" if failed else "info", None)
        del self._waiting[event.camera]

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

    def _notify(self, message: Message, title: str, body: str, severity: str, attached: Path | None) -> None:
        import apprise

        mark = self._config.repeated if message.redelivered else ""
        title = " ".join(f"{mark}{title}".split())  # the subject of a mail is one line
        result = apprise.Apprise(self._address.service).notify(
            title=title,
            body=body.strip() or title,  # some services refuse to send nothing
            notify_type=_TYPES[severity],
            body_format="text",
            attach=None if attached is None else str(attached),
            log_level=logging.DEBUG,
        )
        if not result:
            log = [entry.message for result in result.results for attempt in result.attempts for entry in attempt.logs]
            raise _failure(str(self._address), log, attached is not None)


def _failure(address: str, log: Sequence[str], is_attached: bool) -> SinkFailed | SinkLater | SinkRefused:
    """Returns the exception for a notification that was not accepted. Takes only numbers from the log: it may hold secrets."""
    reason = f"{address} did not accept the notification"
    if any(line.startswith(_REFUSED_IN_PART) for line in log):
        hint = "it refused a recipient, and the others have the mail: check to=, cc= and bcc= in the address"
        return SinkFailed(f"{reason}: {hint}", outcome_unknown=True, reached=True)
    answer = next((match for line in log if (match := _ANSWER.search(line))), None)
    if answer is None:
        reached = not any(_NOT_REACHED.search(line) for line in log)
        hint = "no connection or no answer: check the network, the host and the port"
        if any(_UNTRUSTED in line for line in log):
            hint = "its certificate is not trusted: check it, and the clock of the box"
        return SinkFailed(f"{reason}: {hint}", outcome_unknown=reached, reached=reached)
    code, is_http = int(answer[1] or answer[2]), answer[1] is not None
    reason += f": it answered {code}: "
    if code in _DEFERRED and not is_http:
        return SinkLater(_DEFERRED_S, f"{reason}deferred: sent again later")
    reason += _hint(code, is_http)
    if code in _TOO_LARGE:
        return SinkRefused(reason, maybe_too_large=is_attached)
    # a web server may fail after it has processed the notification; a mail server that refuses a mail does not have it
    unknown = is_http and code >= 500
    return SinkFailed(reason, outcome_unknown=unknown, reached=code not in _BUSY, retry_after_s=_PAUSES_S.get(code))


def _hint(code: int, is_http: bool) -> str:
    """What to do about an answer."""
    if code in _TOO_LARGE:
        return "the message is too large, or the mailbox is full"
    if code in _BUSY:
        return "busy or rate limit: trying again"
    if code in _LOGIN:
        return "check the user, password or token in the address"
    if code in _UNKNOWN:
        return "check the recipient or path in the address"
    return "the service has a problem: trying again" if is_http and code >= 500 else "check the address"
