"""Bounds for curvatures that are known by a factor and never formed."""
