"""What compiled code (numba) has in common: which liberties its floating-point sums may take."""

FLAGS = {"reassoc", "contract"}
"""What compiled sums may be rearranged by: order and fused products, nothing that hides infinities.

For `numba.njit(cache=True, nogil=True, fastmath=FLAGS)`: compiled once per installation, and without the
interpreter's lock, so that rows run side by side.
"""
