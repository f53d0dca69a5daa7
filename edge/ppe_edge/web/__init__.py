"""The web page of the box, its health checks and its metrics."""
