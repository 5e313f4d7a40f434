"""The project's own branch and bound on one block, from its compiled loop up to the registered solver.

`grow` is the compiled search, made of its `state`, its `fixing` rules (reduced-cost fixing) and its
`branching`; `storage` are its arrays, `symmetry` finds what it need not look at, and `log` and
`testimony` leave its proof. `block_tree` holds it between slices, `forest` grows many side by side,
`checkpoint` keeps them in a file. `solver` is what the registry lists.
"""

from solvers.exact.tree.solver import BranchAndBound

__all__ = ["BranchAndBound"]
