"""Sends the sampler's frames to IoT Hub, as messages that the hub's routes write to storage.

The folder of the samples is the queue: a sample is deleted only after the hub has confirmed it, so that restarts and power cuts
lose none. A sample that was confirmed just before a power cut is sent again, with the same id.
"""

import base64
import json
import logging
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from ppe_edge.common.backoff import Backoff
from ppe_edge.iot.hub import HubConnection, HubUnavailable

OUTPUT = "samples"
MAX_BYTES = 250_000  # of a message; IoT Hub carries 256 KiB with its properties
_QUALITIES = (95, 85, 75, 60, 45, 30)  # of the JPEG, until the message fits
_TIMEOUT_S = 30.0
_POLL_S = 5.0  # between two looks into an empty folder

_log = logging.getLogger(__name__)


class Source(Protocol):
    """What the uploader needs of the sampler."""

    @property
    def folder(self) -> Path:
        """Pascal VOC folder with the samples."""

    def take_counts(self) -> tuple[int, int]:
        """Returns the numbers of frames and of unsure frames since the last call."""


class SampleUploader:
    """A thread that sends samples, oldest first.

    Args:
        hub: The connection.
        source: Returns the sampler; None while uploads are off.
    """

    def __init__(self, hub: HubConnection, source: Callable[[], Source | None]) -> None:
        self._hub, self._source = hub, source
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="samples", daemon=True)
        self._refused: set[str] = set()
        self._counts = (0, 0)  # frames and unsure frames that no confirmed message has reported

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Ends the thread; what is not sent stays in the folder."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        backoff = Backoff(1.0, 60.0)
        while not self._stop.wait(0.0):
            source = self._source()
            image = None if source is None else self._oldest(source.folder)
            if source is None or image is None:
                self._stop.wait(_POLL_S)
                continue
            try:
                self._send(source, image)
                backoff.reset()
            except (HubUnavailable, OSError) as error:
                _log.debug("%s: not uploaded (%s)", image.name, error)
                self._stop.wait(backoff.next())

    def _oldest(self, folder: Path) -> Path | None:
        images = [p for p in (folder / "JPEGImages").glob("*.jpg") if p.name not in self._refused]
        return min(images, key=lambda p: p.name.rpartition("_")[2], default=None)  # CAMERA_TIME.jpg

    def _send(self, source: Source, image: Path) -> None:
        from azure.iot.device import Message as HubMessage  # slow to import, and only needed with IoT Edge

        annotation = source.folder / "Annotations" / f"{image.stem}.xml"
        new = source.take_counts()
        self._counts = (self._counts[0] + new[0], self._counts[1] + new[1])
        body = encode(image, annotation, *self._counts)
        if body is None:
            self._refused.add(image.name)
            _log.error("%s: too large for IoT Hub, so it stays here", image)
            return
        message = HubMessage(body, message_id=sample_id(image), content_encoding="utf-8", content_type="application/json")
        message.custom_properties.update({"kind": "sample", "schema_version": "1"})
        self._hub.call(lambda client: client.send_message_to_output(message, OUTPUT), _TIMEOUT_S)
        self._counts = (0, 0)
        image.unlink(missing_ok=True)
        annotation.unlink(missing_ok=True)


def sample_id(image: Path) -> str:
    """Returns the id of a sample. If its message is sent again, the id stays the same."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, image.name))


def encode(image: Path, annotation: Path, frames: int, unsure_frames: int) -> str | None:
    """The message of a sample as JSON; None if it does not fit into MAX_BYTES.

    Args:
        image: The JPEG.
        annotation: Its draft annotation, as Pascal VOC.
        frames: Number of frames that were processed since the last message.
        unsure_frames: How many of them the model was unsure of.

    Raises:
        OSError: A file cannot be read.
    """
    camera, _, time = image.stem.rpartition("_")
    data = image.read_bytes()
    message = {
        "schema_version": 1,
        "kind": "sample",
        "id": sample_id(image),
        "time": time,
        "camera": camera,
        "frames": frames,
        "unsure_frames": unsure_frames,
        "file": image.name,
        "annotation_xml": annotation.read_text(encoding="utf-8"),
    }
    room = MAX_BYTES - len(json.dumps(message | {"image_base64": ""}).encode())
    pixels = None
    for quality in _QUALITIES:
        if len(data) * 4 // 3 + 4 <= room:
            return json.dumps(message | {"image_base64": base64.b64encode(data).decode("ascii")})
        if pixels is None:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if pixels is None:
                return None
        data = bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
    return None
