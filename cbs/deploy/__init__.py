"""Pruned networks in use: smaller files and networks, ONNX, sparse inference on CPUs, measurements."""
