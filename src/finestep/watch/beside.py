"""The process of the page beside a study: FOLDER DESCRIPTOR, the token in its environment. Started by `launch`."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from finestep.watch.serve import Address, serve_on

TOKEN = "FINESTEP_WATCH_TOKEN"


def main() -> None:
    """Serve until standard input ends."""
    folder, descriptor = sys.argv[1:3]
    listener = socket.socket(fileno=int(descriptor))
    host, port = listener.getsockname()[:2]
    serve_on(listener, Path(folder), Address(host, port, os.environ.pop(TOKEN)), ends_with_input=True)


if __name__ == "__main__":
    main()
