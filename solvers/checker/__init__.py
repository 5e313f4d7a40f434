"""The checker of certificates: it reads what is on disk, trusts nothing, and shares no code with any search.

It stands alone: of this project it imports only itself, and beyond the standard library only NumPy and
python-flint. docs/certificates.md says what it verifies and why that is a proof.
"""

from solvers.checker.proofs import Refuted
from solvers.checker.verify import Verdict, verify

__all__ = ["Refuted", "Verdict", "verify"]
