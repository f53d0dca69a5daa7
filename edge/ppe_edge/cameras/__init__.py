"""Cameras: where frames come from, and the reader of each camera."""
