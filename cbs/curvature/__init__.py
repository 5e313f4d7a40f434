"""Curvatures of the loss, or of a layer's output, with respect to the weights; one operator a file."""
