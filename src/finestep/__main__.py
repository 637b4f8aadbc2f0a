"""`python -m finestep` is the command `finestep`."""

import sys

from finestep.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
