"""The Hub: repos, their files, and sets of others by name."""
