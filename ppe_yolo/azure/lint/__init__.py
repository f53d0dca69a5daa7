"""Checks of Azure ML's YAML files."""
