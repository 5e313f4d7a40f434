"""The search in batches of whole problems: frontiers of blocks of one shape, one after the other's turn."""

from __future__ import annotations

from collections.abc import Sequence

from solvers.bounds.split import Split
from solvers.control import Control
from solvers.exact.batched.frontier import Frontier
from solvers.exact.tree.forest import block_gap
from solvers.form.blocks import Block, assemble
from solvers.problem import Mask, SubsetProblem
from solvers.solution import Status
from solvers.solver import Outcome


def search_in_batches(
    problem: SubsetProblem,
    found: Sequence[Block],
    splits: Sequence[Split],
    mask: Mask,
    control: Control,
    *,
    node_limit: int | None,
    memory: int,
) -> Outcome:
    """Best-first search of all blocks at once on the control's device, from a mask's decisions.

    Args:
        problem: what is solved.
        found: its blocks.
        splits: theirs.
        mask: `[m, n]` incumbent.
        control: limits, device, progress.
        node_limit: nodes over all blocks, or None.
        memory: bytes that all open nodes may take.
    """
    pruned = [mask[block.rows[0]] for block in found]
    gap = block_gap(control, [block.value(p) for block, p in zip(found, pruned, strict=True)])
    groups = _alike(found)
    frontiers = [
        Frontier(
            [found[i] for i in group], [splits[i] for i in group], [pruned[i] for i in group],
            gap=gap, memory=memory * len(group) // len(found), device=control.device,
        )
        for group in groups
    ]  # fmt: skip

    def now() -> tuple[float, float, int]:
        values = sum(float(frontier.values.sum()) for frontier in frontiers)
        bounds = sum(sum(frontier.bounds) for frontier in frontiers)
        return values, bounds, sum(frontier.nodes for frontier in frontiers)

    reason: Status | None = None
    planted = 0
    while reason is None and not all(frontier.done for frontier in frontiers):
        reason = control.stopped()
        left = None if node_limit is None else node_limit - now()[2]
        if left is not None and left <= 0:
            reason = reason or Status.NODE_LIMIT
        if reason is not None:
            break
        if planted < len(frontiers):
            frontiers[planted].plant(control.stopped)
            planted += 1
        else:
            min((f for f in frontiers if not f.done), key=lambda f: f.nodes).step(left)
        control.report(*now())
    for group, frontier in zip(groups, frontiers, strict=True):
        for i, choice in zip(group, frontier.pruned, strict=True):
            pruned[i] = choice
    final = assemble(problem, list(found), pruned)
    _, bound, nodes = now()
    control.report(problem.value(final), bound, nodes, final)
    stats = {
        "engine": "batched",
        "nodes": nodes,
        "batches": sum(frontier.batches for frontier in frontiers),
        "split": "own",
        "splits": len(found),
    }
    return Outcome(final, bound, reason or Status.OPTIMAL, stats)


def _alike(found: Sequence[Block]) -> list[list[int]]:
    """Places of blocks that have one shape and the same pools."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, block in enumerate(found):
        groups.setdefault((block.refit, block.B.shape, block.labels.tobytes()), []).append(i)
    return list(groups.values())
