"""Compliance over time: tracked objects with and without violation, kept on the box as numbers without images."""
