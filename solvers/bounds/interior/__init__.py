"""Best diagonal splits by interior-point methods: with tensors for any size, compiled for one block."""
