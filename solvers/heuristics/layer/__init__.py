"""Heuristics on whole wide layers as tensors: annealed ADMM, refits, and rounds of local search."""
