"""Weights in few bits: grids, rounding with and without error feedback, and files of packed codes."""
