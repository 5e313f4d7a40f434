"""Branch and bound with a price on every entry (Guyard et al. 2024)."""

from benchmark_utils.solving import Once, needs

from solvers.peers.known import El0ps

needs("el0ps")


class Solver(Once):
    """Branch and bound with a price on every entry (Guyard et al. 2024).

    In an environment of its own, made by `cbs peers install el0ps`. With `trust` its claim is shown as
    its bound.
    """

    name = "el0ps"
    parameters = {"trust": [True]}

    def chosen(self):
        """The peer, taken at its word or not."""
        return El0ps(trust=self.trust)
