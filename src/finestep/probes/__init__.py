"""Probes: what fits into memory and how fast it runs, predicted from shapes or measured here; a room with torch."""
