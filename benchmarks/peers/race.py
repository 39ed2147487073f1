"""Races this project's builds against other inference engines on this machine; see README.md beside this file."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # run as a file, Python puts this folder on the path instead of the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from benchmarks.peers.command import main

    sys.exit(main())
