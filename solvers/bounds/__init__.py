"""Lower bounds that hold in floating point: splits, their evaluation, and curves of bounds."""
