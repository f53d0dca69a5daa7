"""Formats of annotated data sets: Pascal VOC folders and annotation lists."""
