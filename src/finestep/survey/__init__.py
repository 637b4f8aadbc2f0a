"""What is there: model folders, data files and the machine, read without loading weights or torch."""
