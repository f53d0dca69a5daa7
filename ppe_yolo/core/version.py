"""The version of both packages, ppe_yolo and ppe_edge."""

__version__ = "0.1.0"
