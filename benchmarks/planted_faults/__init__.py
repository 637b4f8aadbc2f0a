"""Does finestep name a fault that was planted on purpose? Real runs on the shipped model, kept as records."""
