"""Counts executed Arm instructions, this project against other engines' AArch64 wheels; see peers/README.md."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # run as a file, Python puts this folder on the path instead of the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from benchmarks.peers.arm.command import main

    sys.exit(main())
