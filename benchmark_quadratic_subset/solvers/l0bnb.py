"""Branch and bound with a price on every entry (Hazimeh et al. 2022)."""

from benchmark_utils.solving import Once, needs

from solvers.peers.known import L0BnB

needs("l0bnb")


class Solver(Once):
    """Branch and bound with a price on every entry (Hazimeh et al. 2022).

    In an environment of its own, made by `cbs peers install l0bnb`. With `trust` its claim is shown as
    its bound.
    """

    name = "l0bnb"
    parameters = {"trust": [True]}

    def chosen(self):
        """The peer, taken at its word or not."""
        return L0BnB(trust=self.trust)
