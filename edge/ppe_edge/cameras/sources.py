"""Frame sources: PyAV reads network streams, devices and files; OpenCV reads folders of images."""

import errno
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from ppe_edge.cameras.address import encode_credentials
from ppe_edge.cameras.timeline import Timeline
from ppe_edge.cameras.upright import (
    MAX_ASPECT,
    MIN_ASPECT,
    Orientation,
    orientation_of,
    upright,
    usable_aspect,
    with_square_pixels,
)
from ppe_edge.common.redact import redact_text
from ppe_yolo.core.cores import available_cores
from ppe_yolo.core.decoding import decode_image
from ppe_yolo.core.files import is_system_file
from ppe_yolo.core.words import plural

av.logging.set_level(None)  # libav would print addresses with their passwords

FOLDER_FPS = 1.0  # frames per second of a folder of images without `fps`
DEFAULT_FPS = 25.0  # of a video file that states none
MAX_PAUSE_S = 5.0  # between two frames of HLS, and how late one may be; beyond it, segments were missed
MIN_READ = 0.9  # share of the length that a video file states
# The file states its length, which other formats have libav estimate from what is there.
_STATES_LENGTH = frozenset({"avi", "flv", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "mxf"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})  # no .tif, unlike data sets: cameras write none
# a playlist from the network must not open local files, and a local playlist must not open the network
_STREAM_PROTOCOLS = "rtp,rtsp,rtsps,rtmp,srtp,tcp,udp,tls,http,https,httpproxy,crypto"
_SCHEMES = ("rtsp", "rtsps", "http", "https")
_TOO_MANY = "the camera may accept no more clients: close other viewers"
_HINTS: dict[type[Exception], str] = {  # what a camera's answer usually means
    av.error.HTTPUnauthorizedError: "check user and password; write % as %25; the camera must allow basic or MD5 digest login",
    av.error.HTTPForbiddenError: "check that this user is allowed to view the stream",
    av.error.HTTPNotFoundError: "check the path of the address",
    av.error.HTTPOtherClientError: _TOO_MANY,
    getattr(av.error, "HTTPTooManyRequestsError", av.error.HTTPOtherClientError): _TOO_MANY,  # 429; older PyAV lacks it
    av.error.HTTPServerError: "the camera may be overloaded, or accept no more clients: close other viewers",
}


class Kind(StrEnum):
    """Kind of a source."""

    stream = "stream"
    device = "device"
    file = "file"
    folder = "folder"


class SourceConfig(BaseModel):
    """Address and timeouts of a camera."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)  # an address may hold a password

    source: SecretStr = Field(
        description="rtsp(s)://USER:PASSWORD@HOST/..., http(s)://..., /dev/videoN, a video file, or a folder of images. "
        "A password may hold @ : / ? #; write % as %25."
    )
    fps: float | None = Field(None, gt=0, le=1000, description="Maximum frame rate, frames per second; default: all frames.")
    pixel_aspect: float | None = Field(
        None,
        ge=MIN_ASPECT,
        le=MAX_ASPECT,
        description="Width of a pixel divided by its height; default: as marked in the stream. 2 for the half-width images of "
        "analogue recorders (such as 352x576) that carry no mark.",
    )
    transport: Literal["tcp", "udp"] = Field("tcp", description="Transport protocol of RTSP.")
    open_timeout_s: float = Field(5.0, gt=0, le=60, description="Timeout for opening the camera.")
    read_timeout_s: float = Field(3.0, gt=0, le=60, description="Timeout for the next data from the camera.")
    frozen_after_s: float = Field(
        8.0,
        gt=0,
        le=3600,
        description="A stream is frozen after this many seconds without a frame, or with an unchanged image.",
    )

    key_frame_timeout_s: float = Field(
        90.0,
        gt=0,
        le=600,
        description="How long to stay connected while data arrives but no key frame, without which no frame can be decoded.",
    )
    attention_after_s: float | None = Field(
        600.0,
        gt=0,
        le=86400,
        description="A camera that has been lost or frozen, or had a faulty view, for this many seconds is reported as "
        "needs_attention, also to people (sinks.notify). null: never.",
    )

    @field_validator("source")
    @classmethod
    def _known_scheme(cls, source: SecretStr) -> SecretStr:
        source = SecretStr(source.get_secret_value().strip())  # a block of YAML or a copied address ends with white space
        scheme, colon, _ = source.get_secret_value().partition("://")
        if colon and scheme not in _SCHEMES:
            got = f"{scheme[:20]}://" if scheme.isalnum() else "something else"  # which may hold a password
            raise ValueError(f"expected an address with {', '.join(_SCHEMES)}, or a path, got {got}")
        if not source.get_secret_value():
            raise ValueError("expected an address or a path, got nothing")
        if colon and not _has_host(encode_credentials(source.get_secret_value())):
            raise ValueError(
                f"expected {scheme}://USER:PASSWORD@HOST:PORT/..., got no host, or a port that is not 1 to 65535: put the "
                "address in quotes, and write special characters of the password as %XX, such as %23 for #"
            )
        return source

    @property
    def address(self) -> str:
        """The full address, for opening the source; user and password are percent-encoded. Never show it."""
        return encode_credentials(self.source.get_secret_value())

    @property
    def kind(self) -> Kind:
        """Kind of the source."""
        if "://" in self.address:
            return Kind.stream
        if self.address.startswith("/dev/video"):
            return Kind.device
        return Kind.folder if Path(self.address).is_dir() else Kind.file

    @property
    def ends(self) -> bool:
        """Whether the source has an end. If so, every frame of it is processed."""
        return self.kind in (Kind.file, Kind.folder)


def _has_host(address: str) -> bool:
    """Whether an address names a host, and no port or a valid one."""
    try:
        parts = urlsplit(address)
        return parts.port != 0 and bool(parts.hostname)
    except ValueError:
        return False


class SourceError(Exception):
    """A source cannot be read, or can no longer be read. The message holds no secrets."""


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """A decoded frame that may be skipped.

    Attributes:
        seconds: Position in the source, counted from its first frame; None if unknown.
        convert: Returns the image, uint8 [H, W, 3], RGB. Slow, so called only for frames that are processed.
        certain: Whether `seconds` comes from intact timestamps; otherwise it is an estimate.
    """

    seconds: float | None
    convert: Callable[[], NDArray[np.uint8]]
    certain: bool = True


def open_source(
    config: SourceConfig,
    on_corrupt: Callable[[str], None],
    on_waiting: Callable[[], None] = lambda: None,
    on_ignored: Callable[[str], None] = lambda ignored: None,
    on_waited: Callable[[float], None] = lambda seconds: None,
) -> Iterator[DecodedFrame]:
    """Iterates over the frames of a source. It is opened with the first frame, and closed with the iterator.

    Args:
        config: The source.
        on_corrupt: Called with the reason for each part that cannot be decoded; reading continues after it.
        on_waiting: Called for each packet that arrives before the first key frame, and therefore cannot be decoded.
        on_ignored: Called once if a part of the source is not read: another video track, or a file of a folder.
        on_waited: Called with the seconds that each packet of a video was waited for.

    Raises:
        SourceError: The source cannot be opened, has no video, or ends with an error.
    """
    try:
        if config.kind is Kind.folder:
            yield from _images(config, on_corrupt, on_ignored)
        else:
            yield from _video(config, on_corrupt, on_waiting, on_ignored, on_waited)
    except (OSError, ValueError, av.error.FFmpegError) as error:
        raise SourceError(_reason(error, config)) from None


def stated_length(config: SourceConfig) -> float | None:
    """Returns how many seconds a video file or a folder lasts at most, without reading it; None if the file does not state it.

    Raises:
        SourceError: It cannot be opened, or has no video.
    """
    try:
        if config.kind is Kind.folder:
            return len(_names_and_images(config)[1]) / (config.fps or FOLDER_FPS) or None
        with _open(config) as container:
            stream = _choose_track(container, config, lambda ignored: None)
            if container.format.name not in _STATES_LENGTH:
                return None
            length, _ = _length(container, stream)
            # a file in fragments counts the frames of the first one, and may state its length alone
            if stream.duration and stream.frames / float(stream.average_rate or 1) < MIN_READ * length:
                return None
            # FLV states it without the time of its first frame, Matroska with it: rather too long than too short
            return max(length, (container.duration or 0) / av.time_base) or None
    except (OSError, ValueError, av.error.FFmpegError) as error:
        raise SourceError(_reason(error, config)) from None


def _reason(error: Exception, config: SourceConfig) -> str:
    if isinstance(error, av.error.ExitError):  # raised by PyAV after a timeout
        return "no answer in time"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    hint = next((f": {hint}" for kind, hint in _HINTS.items() if isinstance(error, kind)), "")
    if isinstance(error, OSError) and error.errno == errno.EPROTONOSUPPORT:
        hint = f": the camera does not offer transport: {config.transport}, set the other one"
    return redact_text(text, config.address)[:200] + hint


def _video(
    config: SourceConfig,
    on_corrupt: Callable[[str], None],
    on_waiting: Callable[[], None],
    on_ignored: Callable[[str], None],
    on_waited: Callable[[float], None],
) -> Iterator[DecodedFrame]:
    with _open(config) as container:
        stream = _choose_track(container, config, on_ignored)
        packets = _timed(container.demux(stream), on_waited)
        frames = _decoded(container, stream, packets, on_corrupt, on_waiting, config)
        yield from _paced(frames, on_waited) if container.format.name == "hls" and not config.ends else frames


def _open(config: SourceConfig) -> InputContainer:
    options: dict[str, str] = {}
    if config.kind is Kind.stream:
        options["protocol_whitelist"] = _STREAM_PROTOCOLS
        options["fpsprobesize"] = "0"  # otherwise libav consumes about twenty frames to estimate the frame rate
        # libav looks for a key frame while it opens the stream, by default for as long as the timeout of opening
        options["analyzeduration"] = str(int(min(1.0, config.open_timeout_s / 5) * 1e6))  # microseconds
        if config.address.startswith("rtsp"):
            options["rtsp_transport"] = config.transport
    elif config.kind is Kind.file:
        options["protocol_whitelist"] = "file,crypto"
    begin = time.monotonic()
    try:
        return av.open(
            # libav takes what precedes a colon in a relative path, such as 10:30.mp4, for a protocol
            str(Path(config.address).absolute()) if config.kind is Kind.file else config.address,
            format="v4l2" if config.kind is Kind.device else None,
            options=options,
            timeout=(config.open_timeout_s, config.read_timeout_s),
        )
    except av.error.InvalidDataError as error:
        if time.monotonic() - begin >= config.open_timeout_s:  # libav's words for a camera that accepts and never answers
            raise SourceError("no answer in time") from None
        hint = "the file is incomplete, damaged or no video" if config.ends else "the address returns no video: check its path"
        raise SourceError(f"{error.strerror}: {hint}") from None


def _timed(packets: Iterator[Packet], on_waited: Callable[[float], None]) -> Iterator[Packet]:
    while True:
        begin = time.monotonic()
        packet = next(packets, None)
        on_waited(time.monotonic() - begin)
        if packet is None:
            return
        yield packet


def _paced(frames: Iterator[DecodedFrame], on_waited: Callable[[float], None]) -> Iterator[DecodedFrame]:
    """Spreads frames that arrive in a burst per segment over the time in which they were recorded."""
    begin = -math.inf  # monotonic time of the first frame, as if all had come in time
    for frame in frames:
        assert frame.seconds is not None
        wait_s = begin + frame.seconds - time.monotonic()
        if abs(wait_s) > MAX_PAUSE_S:  # the first frame, or segments were missed, or the line was down
            begin, wait_s = time.monotonic() - frame.seconds, 0.0
        # one that is merely late does not move `begin`: each segment would add its loading time to the delay
        time.sleep(max(0.0, wait_s))
        on_waited(max(0.0, wait_s))
        yield frame


def _choose_track(container: InputContainer, config: SourceConfig, on_ignored: Callable[[str], None]) -> VideoStream:
    if not container.streams.video:
        raise SourceError("it has no video")
    known = [track for track in container.streams.video if track.codec_context is not None]
    if not known:
        raise SourceError("its codec is unknown: use H.264, H.265 or MJPEG")
    tracks = [track for track in known if not track.disposition & Disposition.attached_pic]
    chosen = (tracks or known)[0]
    if config.ends:  # a video file may begin with its cover picture; of a live stream, libav has not seen enough to choose
        best = container.streams.best("video")
        chosen = best if isinstance(best, VideoStream) else chosen
    if len(tracks) > 1:
        size = f", {chosen.width}x{chosen.height}" if chosen.width else ""
        on_ignored(
            f"it has {len(tracks)} video tracks: track {chosen.index} ({chosen.codec_context.name}{size}) is read, the others "
            "are not: give each its own address or file to read it as another camera"
        )
    return chosen


def _decoded(
    container: InputContainer,
    stream: VideoStream,
    packets: Iterator[Packet],
    on_corrupt: Callable[[str], None],
    on_waiting: Callable[[], None],
    config: SourceConfig,
) -> Iterator[DecodedFrame]:
    stream.thread_type = "SLICE"  # FRAME would delay frames
    stream.codec_context.thread_count = available_cores()  # libav counts the cores of the host, and ignores the quota
    rate = stream.average_rate or stream.guessed_rate
    timeline = Timeline(1.0 / float(rate) if rate else 1.0 / DEFAULT_FPS)
    first_aspect = stream.codec_context.sample_aspect_ratio
    can_decode = config.kind is not Kind.stream
    rotation: float | None = None
    orientation: Orientation = (0, False)
    count, end = 0, 0.0
    for packet in packets:
        count += bool(packet.size)
        if (timestamp := packet.dts if packet.pts is None else packet.pts) is not None:
            end = max(end, float((timestamp + (packet.duration or 0)) * packet.time_base))
        can_decode = can_decode or packet.is_keyframe
        if not can_decode:
            on_waiting()
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:  # from the decoder, not from reading: the next packet may be intact
            if can_decode:
                on_corrupt(_reason(error, config))
            continue
        for frame in frames:
            # what the container states holds until the stream itself states something else
            current = stream.codec_context.sample_aspect_ratio
            marked = stream.sample_aspect_ratio if current == first_aspect else current
            aspect = config.pixel_aspect or usable_aspect(marked)
            seconds = timeline.position(frame.time)
            if frame.rotation != rotation:
                rotation, orientation = frame.rotation, orientation_of(frame)
            yield DecodedFrame(seconds, partial(upright, frame, aspect, orientation), timeline.is_certain)
    if count == 1 and config.address.startswith("http"):  # one packet of RTSP is a camera that disconnected
        raise SourceError("the address returns a single image and ends: use the address of the video stream")
    stated, sound = _length(container, stream)
    length = end - _start(stream)
    # libav ends some files that were cut off without an error. The last of rare frames may lack its duration.
    if config.ends and container.format.name in _STATES_LENGTH and length + length / max(1, count) < MIN_READ * stated:
        cause = ", or its sound is longer than its video" if sound else ""
        read = f"{round(length, 1):g} of {round(stated, 1):g} s"
        on_corrupt(f"its video ends after {read}: the file is incomplete or damaged{cause}")


def _start(stream: VideoStream) -> float:
    return (stream.start_time or 0) * float(stream.time_base or 0)


def _length(container: InputContainer, stream: VideoStream) -> tuple[float, bool]:
    """Returns the seconds that a video file states; and whether they are those of video and sound together."""
    rate = stream.average_rate or stream.guessed_rate
    if container.format.name == "avi" and rate:  # libav guesses the duration of one that has lost its index
        return stream.frames / float(rate), False
    if stream.duration:
        return stream.duration * float(stream.time_base or 0), False
    return (container.duration or 0) / av.time_base - _start(stream), bool(container.streams.audio)


def _images(
    config: SourceConfig, on_corrupt: Callable[[str], None], on_ignored: Callable[[str], None]
) -> Iterator[DecodedFrame]:
    """Reads images in the order of their names, as frames at `fps` (default: `FOLDER_FPS`)."""
    names, files = _names_and_images(config)
    suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
    if not files:
        raise SourceError(f"the folder holds no images ({suffixes})")
    if ignored := [f.name for f in names if f.suffix.lower() not in IMAGE_SUFFIXES]:
        on_ignored(
            f"the box does not read everything in the folder ({plural(len(ignored), 'item')}, first {ignored[0]}): "
            f"only {suffixes} directly in it are read"
        )
    for i, file in enumerate(files):
        try:
            image = decode_image(file.read_bytes())
        except OSError:
            image = None
        if image is None:
            on_corrupt(f"{file.name}: cannot be read as an image")
            continue
        image = with_square_pixels(image, config.pixel_aspect or 1.0)
        yield DecodedFrame(i / (config.fps or FOLDER_FPS), lambda image=image: image)  # type: ignore[misc]


def _names_and_images(config: SourceConfig) -> tuple[list[Path], list[Path]]:
    """Returns what a folder holds, and the images among that, in the order of their names."""
    names = sorted(f for f in Path(config.address).iterdir() if not is_system_file(f.name))
    return names, [f for f in names if f.suffix.lower() in IMAGE_SUFFIXES]
