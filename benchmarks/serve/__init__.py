"""What Ray Serve adds between a client and the server: `python -m benchmarks.serve`."""
