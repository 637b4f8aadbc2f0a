"""Tests of the reading of other tools' configs and scripts."""
