"""`hal-provision` in a process of its own; the last line is its most resident memory in bytes.

python daemon.py ARGUMENT…
"""

from __future__ import annotations

import sys

from memory import peak

from services.provisioner.cli import main

if __name__ == "__main__":
    code = main(sys.argv[1:])
    print(peak())
    sys.exit(code)
