"""What people look at after a run: one HTML page."""
