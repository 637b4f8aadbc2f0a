"""One self-contained HTML page of a study: figures, tables and words, without a network."""
