"""Versions of data sets in a blob store."""
