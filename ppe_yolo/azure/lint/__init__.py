"""Checks of Azure ML's YAML that need no Azure."""
