"""The search of narrow rows on their tableaux: swaps, tabu walks, and paths between good masks."""
