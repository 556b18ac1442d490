"""Scripts that measure and print; their results are in `results/`."""
