"""The project's own branch and bound on one block, from its compiled loop up to the registered solver.

`grow` is the compiled search, made of reduced-cost fixing and dominance (`fixing`, with `symmetry`),
reliability branching (`branching`) and new splits for subtrees (`subtree`), on the arrays of a `store`;
`proof` is what it leaves behind. `block_tree` runs it slice by slice, `forest` grows many trees side by side,
and `solver` is what the registry lists.
"""

from solvers.exact.tree.solver import BranchAndBound

__all__ = ["BranchAndBound"]
