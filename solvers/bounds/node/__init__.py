"""A node's relaxation: its value and gradient, the steps on it, and splits for what branching leaves."""
