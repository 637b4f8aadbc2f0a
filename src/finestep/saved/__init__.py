"""Saved models, loaded as a user loads them: with transformers and PEFT alone, and nothing of finestep's training."""
