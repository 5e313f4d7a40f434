"""Primal heuristics of single rows on their tableaux: swaps, tabu walks, and paths between good masks."""
