"""Other tools' logs -> training logs in the normal form; streaming, tolerant, with strict limits."""
