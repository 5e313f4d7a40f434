"""Presolve: what a user's problem is turned into before solvers see it, and the way back."""
