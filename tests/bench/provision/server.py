"""Serves one file over HTTP as fast as this machine can: `sendfile`, with ranges, and nothing else.

    python server.py FILE

Prints its port. A process of its own, so that its work is nobody's but the other CPU's.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading


def serve(connection: socket.socket, path: str) -> None:
    """Answer requests on a connection until it is closed."""
    size = os.stat(path).st_size  # noqa: PTH116
    with connection, open(path, "rb") as file, connection.makefile("rb") as requests:  # noqa: PTH123
        while request := requests.readline():
            start = 0
            while (header := requests.readline()) not in (b"\r\n", b""):
                if found := re.match(rb"(?i)range: bytes=(\d+)-", header):
                    start = int(found[1])
            status = (
                f"206 Partial Content\r\nContent-Range: bytes {start}-{size - 1}/{size}"
                if start
                else "200 OK"
            )
            head = f'HTTP/1.1 {status}\r\nContent-Length: {size - start}\r\nETag: "one"\r\n\r\n'
            connection.sendall(head.encode())
            while start < size and not request.startswith(b"HEAD"):
                start += os.sendfile(connection.fileno(), file.fileno(), start, size - start)


def main(path: str) -> None:
    """Serve until killed."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, path), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1])
