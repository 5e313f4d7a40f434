"""Re-selection: which weights are left is decided anew by the curvature of the whole network."""
