"""Layouts: the schema of their YAML (model.py); shipped and user layouts (registry.py)."""
