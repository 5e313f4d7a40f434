"""Heuristics that others published, as they published them: what this project's own are held against."""
