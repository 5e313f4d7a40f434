"""The user's network: its prunable layers, its calibration data, its loss, and surgery on copies of it."""
