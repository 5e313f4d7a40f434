"""One budget for many rows: proven cost curves of rows, tightened only where the allocation looks."""
