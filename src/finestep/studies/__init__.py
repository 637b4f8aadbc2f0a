"""Studies: from what a user asks for to a finished study on disk; they compose the rooms below and never print."""
