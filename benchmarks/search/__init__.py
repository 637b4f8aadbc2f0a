"""The search against other engines on recorded surfaces; run with `python -m benchmarks.search`."""
