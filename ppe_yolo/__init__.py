"""Detects bare heads and helmets on building sites: from annotated images to an alert on site.

Example:
    import cv2
    from ppe_yolo import load_detector
    detector = load_detector("helmet-small")
    [detections] = detector.detect([cv2.imread("site.jpg", cv2.IMREAD_COLOR_RGB)])
    print(detections.select(detections.scores >= 0.4))
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ppe_yolo.core.version import __version__

if TYPE_CHECKING:
    from ppe_yolo.core.contract import ModelContract
    from ppe_yolo.core.detections import Detections
    from ppe_yolo.core.letterbox import letterbox
    from ppe_yolo.inference.loading import load_detector

__all__ = ["Detections", "ModelContract", "__version__", "letterbox", "load_detector"]

_HOMES = {
    "Detections": "ppe_yolo.core.detections",
    "ModelContract": "ppe_yolo.core.contract",
    "letterbox": "ppe_yolo.core.letterbox",
    "load_detector": "ppe_yolo.inference.loading",
}

if not TYPE_CHECKING:  # type checkers would accept any name

    def __getattr__(name: str) -> object:
        """Imports a public name when it is first used, so that importing the package stays fast (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
