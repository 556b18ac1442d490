"""A report on a GPU: correctness, then times against the roofline, memory and live load. `make gpu-report`."""
