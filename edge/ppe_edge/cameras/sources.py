"""Where pictures come from: network streams, devices and files by PyAV, folders of photos by OpenCV."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from ppe_edge.redact import redact_text

av.logging.set_level(None)  # libav would write addresses, passwords included, to standard error

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
# a playlist from the network must not open files here, nor one in a file the network
_STREAM_PROTOCOLS = "rtp,rtsp,rtsps,rtmp,srtp,tcp,udp,tls,http,https,httpproxy,crypto"
_SCHEMES = ("rtsp", "rtsps", "http", "https")


class Kind(StrEnum):
    """What an address stands for."""

    stream = "stream"
    device = "device"
    file = "file"
    folder = "folder"


class SourceConfig(BaseModel):
    """A camera's address and how long to be patient with it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)  # an address may hold a password

    source: SecretStr = Field(description="rtsp(s)://..., http(s)://..., /dev/videoN, a video file, or a folder of photos.")
    fps: float | None = Field(None, gt=0, le=1000, description="At most so many pictures a second; all of them when left out.")
    transport: Literal["tcp", "udp"] = Field("tcp", description="How RTSP carries the pictures.")
    open_timeout_s: float = Field(5.0, gt=0, le=60, description="Patience with a camera that does not answer.")
    read_timeout_s: float = Field(3.0, gt=0, le=60, description="Patience with a camera that falls silent.")
    frozen_after_s: float = Field(
        8.0, gt=0, le=3600, description="A stream without a new picture, or with the same one, for so long is frozen."
    )

    @field_validator("source")
    @classmethod
    def _known_scheme(cls, source: SecretStr) -> SecretStr:
        scheme, colon, _ = source.get_secret_value().partition("://")
        if colon and scheme not in _SCHEMES:
            came = f"{scheme[:20]}://" if scheme.isalnum() else "something else"  # which may hold a password
            raise ValueError(f"expected an address of {', '.join(_SCHEMES)}, or a path, got {came}")
        if not source.get_secret_value().strip():
            raise ValueError("expected an address or a path, got nothing")
        return source

    @property
    def address(self) -> str:
        """The address with everything in it: for opening, never for showing."""
        return self.source.get_secret_value()

    @property
    def kind(self) -> Kind:
        """What the address stands for."""
        if "://" in self.address:
            return Kind.stream
        if self.address.startswith("/dev/video"):
            return Kind.device
        return Kind.folder if Path(self.address).is_dir() else Kind.file

    @property
    def ends(self) -> bool:
        """Whether it has an end: then every picture of it is looked at."""
        return self.kind in (Kind.file, Kind.folder)


class SourceError(Exception):
    """A source that cannot be read (any more); the message is fit to be shown."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture that nobody may want.

    Attributes:
        seconds: Its place in the source, counted from its first picture; None where the source does not say.
        convert: Makes uint8 [H, W, 3], RGB, of it. Costly, so only for those that are looked at.
    """

    seconds: float | None
    convert: Callable[[], NDArray[np.uint8]]


def open_source(config: SourceConfig, on_rubbish: Callable[[str], None]) -> Iterator[Picture]:
    """The pictures of a source; it is opened with the first one, and closed with the iterator.

    Args:
        config: The source.
        on_rubbish: Told of each piece that cannot be decoded; the next one follows.

    Raises:
        SourceError: It cannot be opened, holds no pictures, or breaks off.
    """
    try:
        yield from _photos(config, on_rubbish) if config.kind is Kind.folder else _video(config, on_rubbish)
    except (OSError, ValueError, av.error.FFmpegError) as error:
        raise SourceError(_reason(error, config)) from None


def _reason(error: Exception, config: SourceConfig) -> str:
    if isinstance(error, av.error.ExitError):  # what libav is told to do when the time is up
        return "no answer in time"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return redact_text(text, config.address)[:200]


def _video(config: SourceConfig, on_rubbish: Callable[[str], None]) -> Iterator[Picture]:
    options: dict[str, str] = {}
    if config.kind is Kind.stream:
        options["protocol_whitelist"] = _STREAM_PROTOCOLS
        options["fpsprobesize"] = "0"  # else twenty pictures go by while libav finds out how many there are a second
        if config.address.startswith("rtsp"):
            options["rtsp_transport"] = config.transport
    elif config.kind is Kind.file:
        options["protocol_whitelist"] = "file,crypto"
    container = av.open(
        config.address,
        format="v4l2" if config.kind is Kind.device else None,
        options=options,
        timeout=(config.open_timeout_s, config.read_timeout_s),
    )
    with container:
        if not container.streams.video:
            raise SourceError("it holds no pictures")
        yield from _decoded(container, on_rubbish, config)


def _decoded(container: InputContainer, on_rubbish: Callable[[str], None], config: SourceConfig) -> Iterator[Picture]:
    stream = container.streams.video[0]
    stream.thread_type = "SLICE"  # FRAME would hold pictures back
    start: float | None = None
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:  # of the decoder, which reads nothing: the next packet may be sound
            on_rubbish(_reason(error, config))
            continue
        for frame in frames:
            seconds = frame.time
            if start is None:
                start = seconds
            yield Picture(None if seconds is None or start is None else seconds - start, _converter(frame))


def _converter(frame: VideoFrame) -> Callable[[], NDArray[np.uint8]]:
    return lambda: np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)


def _photos(config: SourceConfig, on_rubbish: Callable[[str], None]) -> Iterator[Picture]:
    """Photos in the order of their names, as if one were taken every 1 / fps seconds (every second when fps is left out)."""
    files = sorted(f for f in Path(config.address).iterdir() if f.suffix.lower() in PHOTO_SUFFIXES)
    if not files:
        raise SourceError(f"the folder holds no photos ({', '.join(sorted(PHOTO_SUFFIXES))})")
    for i, file in enumerate(files):
        try:
            photo = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        except (OSError, cv2.error):
            photo = None
        if photo is None:
            on_rubbish(f"{file.name}: cannot be read as a photo")
            continue
        image = np.asarray(cv2.cvtColor(photo, cv2.COLOR_BGR2RGB), dtype=np.uint8)
        yield Picture(i / (config.fps or 1.0), lambda image=image: image)  # type: ignore[misc]
