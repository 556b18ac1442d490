"""The overhead of Ray Serve between a client and the server: `python -m benchmarks.serve`."""
