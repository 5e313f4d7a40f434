"""The project's own branch and bound, from the node's relaxation up to the registered solver.

`tree` is the compiled search of one block, made of its `state`, its `fixing` rules and its
`branching`; `block_tree` holds it between slices, `forest` grows many side by side, `layer` shares a
budget among rows, `solver` is what the registry lists.
"""

from solvers.exact.branch_and_bound.solver import BranchAndBound

__all__ = ["BranchAndBound"]
