"""Whether this machine has a network: a route that leads out, as the kernel lists them (proc(5))."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

IPV4, IPV6 = "/proc/self/net/route", "/proc/self/net/ipv6_route"
"""Not /proc/net: its unit sees processes only in /proc (`ProcSubset=pid`)."""

UP, REJECT = 0x1, 0x200


def present(ipv4: str = IPV4, ipv6: str = IPV6) -> bool:
    """Whether there is one. A network without a default route counts: a mirror may be in it."""
    for line in _lines(ipv4)[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[0] != "lo" and _usable(fields[3]):
            return True
    for line in _lines(ipv6):
        fields = line.split()
        # fe80::/10 and ff00::/8 are there as soon as the interface is, with nobody behind it.
        if len(fields) > 9 and fields[9] != "lo" and fields[0][:2] not in ("fe", "ff") and _usable(fields[8]):
            return True
    return False


def on_this_machine(urls: Iterable[str]) -> bool:
    """Whether any URL needs no network at all."""
    return any(_loopback(urlsplit(url).hostname or "") for url in urls)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _usable(flags: str) -> bool:
    try:
        return int(flags, 16) & (UP | REJECT) == UP
    except ValueError:
        return False


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123 (pathlib costs at start-up)
            return file.read(65536).splitlines()
    except OSError:
        return []
