"""finestep for programs that talk to tools: a server of the Model Context Protocol."""
