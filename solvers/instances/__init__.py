"""Instances of the subset-selection problem: files in and out, and generators."""

from solvers.instances.files import load, save
from solvers.instances.generators import Planted, planted, random_problem
from solvers.instances.model_files import export

__all__ = ["Planted", "export", "load", "planted", "random_problem", "save"]
