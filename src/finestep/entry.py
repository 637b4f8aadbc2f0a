"""The way in: a signal is answered at once, also while Python still loads the rest. It imports almost nothing."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Run the command line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os._exit(128 + number))
    from finestep.cli.main import main as run

    code = run()
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        # While Python ends, a second signal would have its default action, and another exit code.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    return code


if __name__ == "__main__":
    sys.exit(main())
