"""`python -m finestep` is the command `finestep`."""

import sys

from finestep.entry import main

if __name__ == "__main__":
    sys.exit(main())
