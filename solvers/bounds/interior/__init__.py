"""The best diagonal split of a block, by a compiled primal-dual interior-point method."""
