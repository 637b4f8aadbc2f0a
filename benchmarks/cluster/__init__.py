"""A study on many workers, simulated: `python -m benchmarks.cluster`."""
