"""Curvatures, what a method knows of the loss: the values in `base`, and what computes them a file each."""

from cbs.curvature.base import Curvature, Fisher, GaussNewton, GaussNewtonDiagonal, Gram, Identity

__all__ = ["Curvature", "Fisher", "GaussNewton", "GaussNewtonDiagonal", "Gram", "Identity"]
