"""Walks of one command each that need no study: recommend, probe, diagnose, review, rescale, export, merge, ask and tell."""
