"""Logs that are made, with a truth that is known because it was built in; `python -m benchmarks.made_logs`."""
