"""The files of the operating system around the services: identity, accounts, mounts, network, journal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hal.engines import Engine
from hal.engines.environment import engine_environment
from hal.packs.reference import PackRef
from hal.render import arriving, attestor, resolver, sysctl
from hal.render.files import MASK, RenderedFile, text
from hal.render.selector import GROUP, GROUP_ID
from hal.render.systemd import UNITS
from hal.spec.loading import LoadedSpec

GATEWAY_UID = 901
SELECTOR_UID = 902

OS_RELEASE = {
    "debian": {
        "PRETTY_NAME": "Debian GNU/Linux 13 (trixie)",
        "NAME": "Debian GNU/Linux",
        "VERSION_ID": "13",
        "VERSION": "13 (trixie)",
        "VERSION_CODENAME": "trixie",
        "ID": "debian",
    },
    "buildroot": {"PRETTY_NAME": "Buildroot", "NAME": "Buildroot", "ID": "buildroot"},
}
"""What os-release(5) says of each base, as the base itself has it: security scanners go by it."""

MASKED_UNITS = (
    # No shell and no password prompt on any console, in any variant.
    "autovt@.service",
    "console-getty.service",
    "container-getty@.service",
    "debug-shell.service",
    "emergency.service",
    "getty@.service",
    "rescue.service",
    "serial-getty@.service",
    "systemd-ask-password-console.path",
    "systemd-ask-password-console.service",
    "systemd-ask-password-wall.path",
    "systemd-ask-password-wall.service",
    # Only hal's own ssh, and only in debug images.
    "ssh.service",
    "ssh.socket",
    # HAProxy runs as hal-gateway.service.
    "haproxy.service",
    # What would write to the read-only root, or wait for devices that udev would announce.
    "ldconfig.service",
    "systemd-firstboot.service",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-machine-id-commit.service",
    "systemd-networkd-persistent-storage.service",
    "systemd-networkd-wait-online.service",
    "systemd-remount-fs.service",
    "systemd-sysusers.service",
    "systemd-update-done.service",
    # Extensions to the root that nothing has measured.
    "systemd-confext.service",
    "systemd-sysext.service",
    "systemd-sysext.socket",
)

MASKED_GENERATORS = (
    "systemd-cryptsetup-generator",
    "systemd-debug-generator",
    "systemd-fstab-generator",
    "systemd-getty-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-integritysetup-generator",
    "systemd-rc-local-generator",
    "systemd-run-generator",
    "systemd-ssh-generator",
    "systemd-system-update-generator",
    "systemd-sysv-generator",
    "systemd-tpm2-generator",
    "systemd-veritysetup-generator",
)
"""All of them: the appliance's units are all in the image. Several would obey the kernel command line or
the disk's partition table (a debug shell, automatic mounts); without them boot is 2 s faster under TCG."""


@dataclass(frozen=True)
class Tmpfs:
    """A directory in memory; `mode` in octal, `size` a share of the memory."""

    where: str
    what_for: str
    mode: str
    size: str
    options: str


TMPFS = (
    Tmpfs("/tmp", "Temporary files", "1777", "25%", "nosuid,nodev"),
    Tmpfs("/var/tmp", "Temporary files that may be larger", "1777", "25%", "nosuid,nodev"),
    Tmpfs("/var/cache", "Caches", "0755", "25%", "nosuid,nodev"),
    Tmpfs("/var/log", "Logs", "0755", "10%", "nosuid,nodev,noexec"),
)

_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")


def files(loaded: LoadedSpec, packs: Sequence[PackRef]) -> dict[str, RenderedFile]:
    """Everything that is neither a service's unit nor a service's configuration."""
    spec = loaded.spec
    found = {
        "/usr/lib/os-release": text("os-release", loaded, base=OS_RELEASE[spec.base]),
        "/etc/hostname": RenderedFile(f"{spec.appliance.name}\n"),
        "/etc/hosts": text("hosts", loaded),
        "/usr/lib/sysusers.d/hal.conf": text(
            "sysusers.conf",
            loaded,
            engines=loaded.engines,
            gateway=GATEWAY_UID,
            selector=SELECTOR_UID,
            control=GROUP_ID,
            control_group=GROUP,
            attestor=(attestor.USER, attestor.USER_ID),
            provision=(arriving.USER, arriving.USER_ID) if arriving.needed(loaded) else None,
        ),
        "/usr/lib/clock-epoch": text("clock-epoch", loaded),
        # No comment in it: a few lines of C in the initrd read it.
        "/usr/lib/hal/packs": RenderedFile("".join(f"{pack.line()}\n" for pack in packs)),
    }
    found |= sysctl.files(loaded) | resolver.files(loaded) | arriving.files(loaded)
    for engine in loaded.engines:
        found[f"/etc/hal/engines/{engine.name}.env"] = text(
            "engine.env", loaded, engine=engine, variables=environment(loaded, engine)
        )
    return found


def systemd_files(loaded: LoadedSpec) -> dict[str, RenderedFile]:
    """What systemd itself is told: journal, network, mounts, and which of its own units are none."""
    found = {
        # Empty: systemd makes one for each boot and keeps it in memory (machine-id(5)).
        "/etc/machine-id": RenderedFile("", 0o444),
        "/etc/systemd/system.conf.d/hal.conf": text("system.conf", loaded),
        "/etc/systemd/journald.conf.d/hal.conf": text("journald.conf", loaded),
        "/etc/systemd/network/20-wired.network": text("wired.network", loaded),
        "/etc/systemd/system/systemd-networkd.service.d/hal.conf": text("networkd.conf", loaded),
        "/etc/systemd/system/systemd-tmpfiles-setup.service.d/hal.conf": text("tmpfiles-setup.conf", loaded),
        "/usr/lib/tmpfiles.d/hal.conf": text(
            "tmpfiles.conf", loaded, directories=arriving.DIRECTORIES if arriving.needed(loaded) else ()
        ),
    }
    for tmpfs in TMPFS:
        found[f"{UNITS}/{tmpfs.where.strip('/').replace('/', '-')}.mount"] = text(
            "tmpfs.mount", loaded, tmpfs=tmpfs
        )
    found |= {f"/etc/systemd/system/{unit}": MASK for unit in MASKED_UNITS}
    found |= {f"/etc/systemd/system-generators/{generator}": MASK for generator in MASKED_GENERATORS}
    return found


def environment(loaded: LoadedSpec, engine: Engine) -> dict[str, str]:
    """An engine's environment: its file's, with the spec's settings, the port and the model filled in.

    Values are quoted where `EnvironmentFile=` needs it (systemd.exec(5)).
    """
    values = engine_environment(engine, loaded.choice(engine), loaded.served(engine), loaded.spec)
    return {name: env_quoted(value) for name, value in values.items()}


def env_quoted(value: str) -> str:
    """A value as it stands in an environment file."""
    if _PLAIN_VALUE.fullmatch(value):
        return value
    return '"' + re.sub(r'(["\\`$])', r"\\\1", value) + '"'
