"""Kernel settings of the appliance, in one file that the initrd's init applies before any program runs.

The file is sysctl.d(5)'s, so that systemd-sysctl or an init script can apply it where that init is not
used. Sources: Documentation/admin-guide/sysctl of Linux 6.12; the Kernel Self Protection Project's list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hal.render.files import RenderedFile, text
from hal.spec.loading import LoadedSpec

PATH = "/usr/lib/sysctl.d/hal.conf"


@dataclass(frozen=True)
class Setting:
    """A kernel setting. The boot stops when it cannot be made, but for an `optional` one."""

    key: str
    value: str
    why: str
    optional: bool = False

    @property
    def line(self) -> str:
        """As sysctl.d(5) has it."""
        return f"{'-' if self.optional else ''}{self.key} = {self.value}"


def settings(variant: str) -> Iterator[Setting]:
    """The settings of a variant, in the order in which they are made."""
    yield from COMMON
    if variant == "production":
        yield Setting("kernel.yama.ptrace_scope", "3", "nobody looks into a process, root neither", True)
    else:
        yield Setting("kernel.yama.ptrace_scope", "2", "root alone looks into processes: a debug image", True)
    yield Setting("kernel.modules_disabled", "1", "every module is in; nothing opens this again", True)


def files(loaded: LoadedSpec) -> dict[str, RenderedFile]:
    """The file."""
    return {PATH: text("sysctl.conf", loaded, settings=tuple(settings(loaded.spec.variant)))}


COMMON = (
    Setting("kernel.sysrq", "0", "a break on the serial line is the host's, and would give it orders", True),
    Setting("kernel.dmesg_restrict", "1", "the kernel's log is for root"),
    Setting("kernel.kptr_restrict", "2", "the kernel's addresses are for nobody"),
    Setting("kernel.perf_event_paranoid", "3", "no measuring of other programs", True),
    Setting(
        "kernel.unprivileged_bpf_disabled", "1", "only PID 1 loads BPF programs, for its sandboxes", True
    ),
    Setting("net.core.bpf_jit_harden", "2", "and their constants are blinded", True),
    Setting("kernel.kexec_load_disabled", "1", "no other kernel is started from this one", True),
    Setting("kernel.io_uring_disabled", "2", "no service uses it, and it has a history", True),
    Setting(
        "kernel.unprivileged_userns_clone", "0", "Debian's switch: only root makes user namespaces", True
    ),
    Setting("kernel.randomize_va_space", "2", "addresses differ in each process"),
    Setting("kernel.core_pattern", "|/bin/false", "memory holds prompts: it is never written out", True),
    Setting("fs.suid_dumpable", "0", "see kernel.core_pattern"),
    Setting("fs.protected_hardlinks", "1", "no links to what one cannot read"),
    Setting("fs.protected_symlinks", "1", "no links of others are followed in shared directories"),
    Setting("fs.protected_fifos", "2", "nor pipes opened there"),
    Setting("fs.protected_regular", "2", "nor files"),
    Setting("vm.mmap_min_addr", "65536", "a null pointer in the kernel leads nowhere", True),
    Setting("vm.unprivileged_userfaultfd", "0", "page faults of the kernel wait for nobody", True),
    Setting("dev.tty.ldisc_autoload", "0", "no line disciplines but those that are there", True),
    Setting("dev.tty.legacy_tiocsti", "0", "no typing into other programs' terminals", True),
    Setting("net.ipv4.tcp_syncookies", "1", "a flood of connections does not fill memory", True),
    Setting("net.ipv4.ip_forward", "0", "the appliance is no router"),
    Setting("net.ipv4.icmp_echo_ignore_broadcasts", "1", "nor an amplifier"),
    *(
        Setting(f"net.{family}.conf.{interface}.{key}", "0", "the network does not change the routes", True)
        for family, key in (
            ("ipv4", "accept_redirects"),
            ("ipv4", "secure_redirects"),
            ("ipv4", "send_redirects"),
            ("ipv4", "accept_source_route"),
            ("ipv6", "accept_redirects"),
            ("ipv6", "accept_source_route"),
        )
        for interface in ("all", "default")
    ),
    Setting("net.ipv4.conf.all.rp_filter", "1", "an answer goes out where its question came in", True),
    Setting("net.ipv4.conf.default.rp_filter", "1", "see net.ipv4.conf.all.rp_filter", True),
)
