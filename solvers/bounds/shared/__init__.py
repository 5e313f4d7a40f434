"""Rows of one curvature, of any width, all at once: a split they share, and what is gained beyond it."""
