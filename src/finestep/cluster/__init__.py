"""A study on the nodes of a Ray cluster: a process that drives it, actors on its nodes, and files as messages. No torch here."""
