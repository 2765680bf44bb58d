"""`python -m lexora_sim`."""

import sys

from lexora_sim.cli import main

if __name__ == "__main__":
    sys.exit(main())
