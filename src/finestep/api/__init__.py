"""finestep from Python: tune, train and diagnose as functions, and a study as an object."""
