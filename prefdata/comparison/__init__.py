"""Two builds compared: what was added, is gone, changed its label, moved, or differs."""
