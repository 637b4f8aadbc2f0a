"""Training itself: data, model, adapters, optimizer, loop, evaluation, checkpoints; the only room with torch."""
