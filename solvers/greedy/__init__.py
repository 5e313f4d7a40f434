"""Greedy elimination (Optimal Brain Compression): a weight at a time, for every number of weights at once."""
