"""What a GPU does: correctness first, then times against the roofline, memory and live load. `make gpu-report`."""
