"""Local moves in closed form on tensors, a tableau for every row: for devices, and curvatures a row."""
