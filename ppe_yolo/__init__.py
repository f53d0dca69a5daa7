"""ppe_yolo: find bare heads on building sites, from annotated photos to an alert at the gate."""

__version__ = "0.1.0"
