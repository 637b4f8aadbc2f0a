"""Laws of tuning, one a file: facts in, numbers out; pure, no files, no clock, no torch."""
