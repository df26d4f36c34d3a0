"""Report of a run: one HTML page."""
