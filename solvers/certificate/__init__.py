"""Certificates: proofs of lower bounds, put into files that `solvers.checker` verifies."""

from solvers.certificate.proof import Proof

__all__ = ["Proof"]
