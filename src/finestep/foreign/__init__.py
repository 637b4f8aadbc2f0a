"""Somebody's training config or script in finestep's words: what it says, where it says it, and what its tool assumes otherwise."""
