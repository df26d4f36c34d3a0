"""Layouts: the form of their YAML (model.py), the shipped ones and a user's own (registry.py)."""
