"""The sandbox that every service of the appliance runs in, and the exceptions from it.

Directives: systemd.exec(5), systemd.resource-control(5). `systemd-analyze security` puts a service
with all of them below 1 of 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# A value of several lines becomes several lines of the unit.
COMMON: Mapping[str, str] = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    # A tmpfs of the service's own: nothing to wait for and nothing shared.
    "PrivateTmp": "disconnected",
    "PrivateDevices": "yes",
    "DevicePolicy": "closed",
    "PrivateUsers": "yes",
    "PrivateIPC": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectProc": "invisible",
    "ProcSubset": "pid",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "RemoveIPC": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallFilter": "@system-service\n~@privileged @resources",
    "SystemCallErrorNumber": "EPERM",
    "KeyringMode": "private",
    "UMask": "0077",
    # Memory holds prompts and answers: it is never written out.
    "LimitCORE": "0",
    "MemorySwapMax": "0",
    "MemoryZSwapMax": "0",
    "IPAddressDeny": "any",
    "IPAddressAllow": "localhost",
}


@dataclass(frozen=True)
class Exemption:
    """A directive that one service has otherwise, and why it cannot run without."""

    value: str
    reason: str


@dataclass(frozen=True)
class Directive:
    """A line of a unit; `reason` is set where it differs from what all services have."""

    name: str
    value: str
    reason: str | None = None


def sandbox(exemptions: Mapping[str, Exemption]) -> tuple[Directive, ...]:
    """The sandbox of one service, in a fixed order, with its exemptions in place."""
    found = []
    for name in [*COMMON, *(name for name in exemptions if name not in COMMON)]:
        exemption = exemptions.get(name)
        if exemption is not None:
            first, *others = exemption.value.split("\n")
            found.append(Directive(name, first, exemption.reason))
            found += [Directive(name, line) for line in others]
        else:
            found += [Directive(name, line) for line in COMMON[name].split("\n")]
    return tuple(found)
