"""Collects the samples that boxes upload: messages in storage, as IoT Hub writes them, become a data set to annotate."""

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppe_yolo.core.errors import UserError
from ppe_yolo.core.files import write_bytes, write_json, write_text

SUMMARY = "samples.json"
_DEVICE = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Result of `collect`.

    Attributes:
        devices: Number of devices.
        samples: Number of different samples.
        frames: Number of frames that the devices report to have processed.
        unsure_frames: How many of these the models were unsure of.
        unreadable: Number of lines that are not samples.
    """

    devices: int
    samples: int
    frames: int
    unsure_frames: int
    unreadable: int

    @property
    def unsure_share(self) -> float:
        """Share of the frames that the models were unsure of; 0 without frames."""
        return self.unsure_frames / self.frames if self.frames else 0.0


def collect(messages: Path, out: Path) -> Samples:
    """Writes the samples as a Pascal VOC folder with draft annotations, and `samples.json` with their numbers.

    A message that arrives twice is written once. Other messages are skipped.

    Args:
        messages: Folder that IoT Hub writes to: files with one JSON object per line (`Body`, `SystemProperties`).
        out: A new folder, or that of an earlier call.

    Raises:
        UserError: There is no such folder.
    """
    if not messages.is_dir():
        raise UserError(file=messages, expected="a folder with messages of boxes", got="no such folder")
    seen: set[str] = set()
    devices: set[str] = set()
    frames = unsure = unreadable = 0
    for device, body in _bodies(messages):
        if body is None:
            unreadable += 1
            continue
        key = f"{device} {body['id']}"
        if body.get("kind") != "sample" or key in seen:
            continue
        try:
            image = base64.b64decode(body["image_base64"], validate=True)
            stem = f"{_DEVICE.sub('-', device)}_{Path(str(body['file'])).stem}"
            annotation = str(body["annotation_xml"]).replace(str(body["file"]), f"{stem}.jpg")
            counts = int(body["frames"]), int(body["unsure_frames"])
        except (KeyError, ValueError, TypeError, binascii.Error):
            unreadable += 1
            continue
        seen.add(key)
        devices.add(device)
        frames, unsure = frames + counts[0], unsure + counts[1]
        write_bytes(out / "JPEGImages" / f"{stem}.jpg", image)
        write_text(out / "Annotations" / f"{stem}.xml", annotation)
    found = Samples(devices=len(devices), samples=len(seen), frames=frames, unsure_frames=unsure, unreadable=unreadable)
    summary = {"devices": found.devices, "samples": found.samples, "frames": found.frames}
    write_json(out / SUMMARY, {**summary, "unsure_frames": found.unsure_frames, "unsure_share": found.unsure_share})
    return found


def _bodies(messages: Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Device and body of each message; None for a line that is not a message."""
    for path in sorted(p for p in messages.rglob("*") if p.is_file()):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
                body = record["Body"]
                if isinstance(body, str):  # IoT Hub encodes a body without the content type application/json
                    body = json.loads(base64.b64decode(body))
                device = str(record.get("SystemProperties", {}).get("connectionDeviceId", "device"))
                yield device, body if isinstance(body, dict) and "id" in body else None
            except (ValueError, KeyError, TypeError, AttributeError):
                yield "", None
