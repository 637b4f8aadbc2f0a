"""Public recipes, measured sweeps and model shapes, each row with its source; data files plus look-ups, no
reasoning."""
