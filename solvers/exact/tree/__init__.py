"""The project's own branch and bound on one block, from its compiled loop up to many trees side by side.

`grow` is the compiled search, made of reduced-cost fixing and dominance (`fixing`, with `symmetry`),
reliability branching (`branching`) and new splits for subtrees (`subtree`), on the arrays of a `store`;
`proof` is what it leaves behind. `block_tree` runs it slice by slice, `forest` grows many trees side by side.
The registered solver is `solvers.exact.branch_and_bound`.
"""
