"""The project's own branch and bound, from the node's relaxation up to the registered solver.

`tree` is the compiled search of one block, made of its `state`, its `fixing` rules and its
`branching`; `storage` are its arrays, `symmetry` finds what it need not look at, and `log` and
`testimony` leave its proof. `block_tree` holds it between slices, `forest` grows many side by side,
`checkpoint` keeps them in a file; `layer` shares a budget among rows (`sharing`) by their curves
(`row_curve`, `curve`), kept by `layer_checkpoint`. `solver` is what the registry lists.
"""

from solvers.exact.branch_and_bound.solver import BranchAndBound

__all__ = ["BranchAndBound"]
