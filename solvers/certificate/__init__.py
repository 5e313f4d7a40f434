"""Certificates: proofs of lower bounds, put into files that `solvers.checker` verifies."""

from solvers.certificate.certificate import Certificate
from solvers.certificate.certify import certify, check_certifiable, together
from solvers.certificate.claims import prove, root_proof
from solvers.certificate.groups import group_proof, prove_in_groups
from solvers.certificate.proof import IMPOSSIBLE, OffDiagonal, Proof

__all__ = [
    "IMPOSSIBLE",
    "Certificate",
    "OffDiagonal",
    "Proof",
    "certify",
    "check_certifiable",
    "group_proof",
    "prove",
    "prove_in_groups",
    "root_proof",
    "together",
]
