"""One file by the provisioner's own transfer, in a process of its own: prints what it took as JSON.

    python fetcher.py URL SIZE SHA256 PART

The time is that of the transfer: to the hash and the bytes on the disk, without the interpreter's start.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from memory import peak

from services.provisioner.config import Config
from services.provisioner.network.places import places
from services.provisioner.network.session import Network
from services.provisioner.network.transfer import Limits, Part, fetch
from services.provisioner.pins import HttpsSource, PinnedFile


def main(url: str, size: int, sha256: str, path: str) -> None:
    """Fetch, and tell what it took."""
    config = Config((), "", "", "", "")
    file = PinnedFile("model", size, sha256, HttpsSource(url))
    began, cpu = time.monotonic(), time.process_time()
    part = Part(path, size)
    fetch(
        file,
        places(config, file)[0],
        part,
        network=Network(config),
        limits=Limits(),
        stop=threading.Event(),
        progress=lambda _: None,
    )
    part.close()
    seconds, used = time.monotonic() - began, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": used, "memory": peak()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
