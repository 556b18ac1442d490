"""Scripts that measure and print; their reports go to `results/`."""
