"""The evaluation report: figures, charts and the HTML page."""
