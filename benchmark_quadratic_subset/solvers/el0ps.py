"""Branch and bound with a price on every entry (Guyard et al. 2024)."""

from benchmark_utils.solving import Once

from solvers.peers.known import El0ps


class Solver(Once):
    """Branch and bound with a price on every entry (Guyard et al. 2024).

    In an environment of its own, made by `cbs peers install el0ps`. With `trust` its claim of a bound is shown as one.
    """

    name = "el0ps"
    parameters = {"trust": [True]}

    def chosen(self):
        """The peer, taken at its word or not."""
        return El0ps(trust=self.trust)
