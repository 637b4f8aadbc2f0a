"""`finestep mcp`: a server for agents, over standard input and output."""

from __future__ import annotations


def mcp() -> None:
    """Serve agents (Model Context Protocol).

    It speaks over standard input and output, and offers recommend, inspect data, predict memory, start, watch, stop and
    read a study, diagnose and export.
    """
    from finestep.errors import MissingDependency

    try:
        import mcp.server  # noqa: F401
    except ImportError:
        raise MissingDependency("mcp", needed_for="the server for agents", extra="mcp") from None
    from finestep.agents.server import server

    server.run("stdio")
