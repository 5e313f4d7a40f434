"""Budgets and variants by the words that data sets have for them."""

from solvers import Budget

VARIANTS = {"joint": True, "selection": False}


def budget(kind, rows, inputs, sparsity):
    """A budget that prunes a share of the entries.

    Args:
        kind: `per_row`, `per_layer`, `2:4` or `columns`; `2:4` is half, whatever the share.
        rows: of the layer.
        inputs: of a row.
        sparsity: share that is pruned.
    """
    if kind == "per_row":
        return Budget.per_row(round(sparsity * inputs))
    if kind == "per_layer":
        return Budget.per_layer(round(sparsity * rows * inputs))
    if kind == "2:4":
        return Budget.n_of_m(2, 4)
    if kind == "columns":
        return Budget.columns(round(sparsity * inputs))
    raise ValueError(f"budget must be per_row, per_layer, 2:4 or columns, got {kind!r}")
