"""Records of a run -> findings; the same detectors serve the live monitor and `finestep diagnose`; pure."""
