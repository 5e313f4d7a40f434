"""Branch and bound on tensors: the nodes of many blocks in one step, on any device of PyTorch."""
