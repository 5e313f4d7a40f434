"""The search of rows whose curvature is known by a factor and never formed."""
