"""Where a pruned network loses, what its masks depend on, and what its sparsity really is."""
