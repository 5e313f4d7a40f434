"""Whole dense layers as tensors: alternating directions whose penalty anneals, and rounds of row search."""
