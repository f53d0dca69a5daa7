"""The version of both packages, ppe_yolo and ppe_edge."""

__version__ = "0.2.0"
