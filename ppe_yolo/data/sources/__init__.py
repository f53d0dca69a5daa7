"""Formats of annotated images."""
