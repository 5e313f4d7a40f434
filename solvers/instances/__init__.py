"""Instances of the subset-selection problem: files in and out, and generators."""

from solvers.instances.files import load, save
from solvers.instances.generators import Planted, planted, random_problem

__all__ = ["Planted", "load", "planted", "random_problem", "save"]
