"""Strategies: trials so far -> the next trials to run. Pure: no clock, no files, no torch; recomputed from the study every time."""
