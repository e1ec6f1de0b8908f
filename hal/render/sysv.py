"""`init: sysv`: BusyBox init, its inittab, and one init script per service, all from one template.

A service is a value; what differs between the gateway, the selector and the engines is in it, and the
engines' come from their YAML files. docs/sysv.md says how it works and what systemd does better.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hal.engines import Engine
from hal.engines.gpu import Gpu, gpu_of
from hal.models import MARKERS
from hal.render import arriving, attestor, control, gateway, provision, resolver, selector, systemd
from hal.render import engine as launching
from hal.render.files import PROGRAM, RenderedFile, link, text
from hal.render.filters import filter_file, filter_path
from hal.render.memory import SLICE, engines_share
from hal.render.sandbox import Exemption
from hal.render.system import TMPFS
from hal.spec.loading import LoadedSpec

SCRIPTS = "/etc/init.d"
PRIVATE = "/usr/lib/hal"
"""Where programs lie that only other programs of the appliance run."""

FETCH = f"{PRIVATE}/credentials"
"""What brings in the gateway's credentials, in debug images; with `-provision`, the provisioner's."""

BUSYBOX = "/usr/bin/busybox"
APPLETS = (
    *("/usr/sbin/init", "/usr/sbin/poweroff", "/usr/sbin/reboot", "/usr/sbin/halt"),
    *("/usr/bin/mount", "/usr/bin/umount"),
    *("/usr/sbin/syslogd", "/usr/sbin/klogd", "/usr/sbin/udhcpc", "/usr/bin/logread"),
)
"""What BusyBox does here; everything else is done by the programs that the base has anyway."""

CLOSED_IDS = ("902-902", "904-999")
"""Users that the network is closed to, but for loopback: the selector's and all engines'."""


@dataclass(frozen=True)
class Directory:
    """A directory that a service finds when it starts; `mode` in octal, `group` "" for the service's own."""

    path: str
    mode: str = "0750"
    group: str = ""


@dataclass(frozen=True)
class Service:
    """A program that an init script keeps running.

    `command` is shell text: an argument each, quoted, where variables of `environment` (a file) may stand.
    `capabilities` are all that it can ever have (capabilities(7), without `cap_`, small letters); `writable`
    are the places below which it may write (Landlock). `confined` is False for what sees and touches all.
    `state_file` is where it says how it is, if it does (services/engine/report.py).
    `exemptions` are those of its unit, for the filter of system calls; None: it has no filter.
    `slice` is a control group that it shares with others, and with them a limit of memory. `pins_memory`: it
    may lock as much of that as it wants (setrlimit(2), RLIMIT_MEMLOCK).
    `before` is what root runs ahead of it. `groups` are further ones of its user. `reload` is a command that
    makes it read its configuration anew (none: a restart does). `longest_delay` in seconds bounds the wait
    before it is started again, `stop_seconds` its orderly end.
    """

    order: int
    name: str
    summary: str
    command: tuple[str, ...]
    before: str = ""
    user: str = "root"
    group: str = "root"
    groups: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    directories: tuple[Directory, ...] = ()
    writable: tuple[str, ...] = ()
    environment: str | None = None
    umask: str = "0077"
    stop_signal: str = "TERM"
    reload: tuple[str, ...] = ()
    stop_seconds: int = 5
    longest_delay: int = 10
    oom_score: int = 0
    working_directory: str = "/"
    state_file: str = ""
    exemptions: Mapping[str, Exemption] | None = None
    confined: bool = True
    slice: str = ""
    pins_memory: bool = False

    @property
    def cgroup(self) -> str:
        """Its control group, below /sys/fs/cgroup."""
        return f"{self.slice}/{self.name}" if self.slice else self.name

    @property
    def script(self) -> str:
        """The name of its init script, which says when it is started."""
        return f"S{self.order:02d}{self.name}"

    @property
    def privileges(self) -> tuple[str, ...]:
        """The command line that gives up what it does not need, setpriv(1); empty where it needs all."""
        if not self.confined:
            return ()
        kept = ",".join(["-all", *(f"+{name}" for name in self.capabilities)])
        rules = [f'--landlock-rule "path-beneath:$WRITE:{path}"' for path in ("/dev", *self.writable)]
        # By a second one: under its filter, the first could not change the user any more.
        filtered = (f"setpriv --no-new-privs --seccomp-filter {filter_path(self.name)}", "--")
        return (
            "setpriv",
            f"--reuid {self.user} --regid {self.group} "
            + (f"--groups {','.join(self.groups)}" if self.groups else "--clear-groups"),
            f"--no-new-privs --bounding-set {kept} --inh-caps -all --ambient-caps -all",
            '--landlock-access "fs:$WRITE"',
            *rules,
            "--",
            *(filtered if self.exemptions is not None else ()),
        )


ALL_WRITING = (
    "write-file,truncate,remove-dir,remove-file,refer,"
    "make-char,make-dir,make-reg,make-sock,make-fifo,make-block,make-sym"
)
"""Every way to change a file system that Landlock knows since Linux 6.2; `refer` moves to another folder."""

_NEEDS_QUOTES = re.compile(r"[^A-Za-z0-9_./:@%+,=-]")


def files(loaded: LoadedSpec) -> dict[str, RenderedFile]:
    """BusyBox's files, the init scripts, and the programs that they share."""
    debug = loaded.spec.variant == "debug"
    fetched = credential_programs(loaded) if debug else {}
    found = {
        "/etc/inittab": text("inittab", loaded),
        "/etc/fstab": text("fstab", loaded, tmpfs=TMPFS),
        f"{SCRIPTS}/rcS": _program(
            "rcS", loaded, slice=SLICE, share=engines_share(loaded), fetch=list(fetched)
        ),
        f"{SCRIPTS}/rcK": _program("rcK", loaded),
        f"{PRIVATE}/supervise": _program("supervise", loaded),
        f"{PRIVATE}/network": _program("network", loaded, closed=CLOSED_IDS, udhcpc=f"{PRIVATE}/udhcpc"),
        f"{PRIVATE}/udhcpc": _program("udhcpc", loaded, resolver=resolver.FILE),
        "/usr/bin/hal-selector": _program("hal-selector", loaded),
    }
    found |= fetched
    if debug:
        found[f"{PRIVATE}/ssh"] = _program("ssh-start", loaded)
        found["/etc/hal/ssh/sshd_config"] = text("sshd_config", loaded)
    found |= {applet: link(BUSYBOX) for applet in APPLETS}
    for service in services(loaded):
        found[f"{SCRIPTS}/{service.script}"] = _program(
            "service.init", loaded, service=service, all_writing=ALL_WRITING
        )
        if service.exemptions is not None:
            found |= filter_file(loaded, service.name, service.exemptions)
    return found


def credential_programs(loaded: LoadedSpec) -> dict[str, RenderedFile]:
    """What brings in credentials, one program for each user that has some."""
    users = (
        (FETCH, "hal-gateway", gateway.CREDENTIALS, gateway.credentials(loaded)),
        (f"{FETCH}-provision", arriving.USER, provision.CREDENTIALS, arriving.credentials(loaded)),
    )
    return {
        path: _program("credentials", loaded, names=names, directory=places["sysv"], user=user)
        for path, user, places, names in users
        if names
    }


def services(loaded: LoadedSpec) -> list[Service]:
    """All services of an appliance, in the order in which they start."""
    found = [
        Service(
            order=1,
            name="syslogd",
            summary="System log, in memory: `logread` shows it",
            command=("/usr/sbin/syslogd", "-n", "-C1024"),
        ),
        Service(
            order=2,
            name="klogd",
            summary="The kernel's messages, to the system log",
            command=("/usr/sbin/klogd", "-n"),
            capabilities=("syslog",),
        ),
        Service(
            order=40,
            name="network",
            summary="Loopback, the network interface and its address",
            command=(f"{PRIVATE}/network",),
            capabilities=("net_admin", "net_raw"),
            directories=(Directory(resolver.DIRECTORY, "0755"),),
            writable=(resolver.DIRECTORY,),
        ),
        Service(
            order=60,
            name="hal-gateway",
            summary=f"Gateway (HAProxy) on port {loaded.spec.gateway.port}",
            command=(
                gateway.SERVE if loaded.spec.tls else "/usr/sbin/haproxy",
                *("-db", "-f", f"{gateway.DIRECTORY}/haproxy.cfg"),
            ),
            user="hal-gateway",
            group="hal-gateway",
            directories=(Directory("/run/hal/gateway", "0751"),),  # the attestor reads the certificate
            writable=("/run/hal/gateway",),
            umask="0007",  # the selector, of the same group, uses the admin socket
            stop_signal="USR1",  # lets open requests end; hard-stop-after in its configuration bounds that
            stop_seconds=10,
            longest_delay=5,
            oom_score=-900,
            exemptions=systemd.gateway_exemptions(loaded),
        ),
        *((control_service(),) if control.needed(loaded) else ()),
        Service(
            order=70,
            name="hal-selector",
            summary="Selector: decides which engine serves and tells the gateway",
            command=("/usr/bin/hal-selector", "run"),
            user="hal-selector",
            group="hal-gateway",
            groups=(selector.GROUP,) if control.needed(loaded) else (),
            directories=(Directory("/run/hal/selector"), Directory(selector.STATE, "0700")),
            writable=(
                *("/run/hal/selector", selector.STATE),
                *((selector.CONTROL,) if control.needed(loaded) else ()),  # the pipe; its mode bounds it
            ),
            reload=("/usr/bin/hal-selector", "reload"),
            umask="0007",  # the gateway, of the same group, uses the status socket
            longest_delay=10,
            oom_score=-800,
            exemptions=systemd.SELECTOR_EXEMPTIONS,
        ),
        *((provisioner_service(),) if arriving.needed(loaded) else ()),
        attestor_service(loaded),
        *(engine_service(engine, gpu_of(engine, loaded.choice(engine))) for engine in loaded.engines),
    ]
    if loaded.spec.variant == "debug":
        ssh = Service(
            order=99,  # last: it makes a key, which takes time
            name="hal-ssh",
            summary="ssh for debugging: a root shell to see and touch everything",
            command=(f"{PRIVATE}/ssh",),
            confined=False,
        )
        found.append(ssh)
    return sorted(found, key=lambda service: (service.order, service.name))


def control_service() -> Service:
    """What starts and stops engines for the selector: root, as it calls init scripts, which must be."""
    return Service(
        order=65,
        name="hal-control",
        summary="Starts and stops engines for the selector",
        command=(control.PROGRAM_PATH,),
        # Files in it get the directory's group, which may write orders.
        directories=(Directory(selector.CONTROL, "2750", selector.GROUP),),
        longest_delay=10,
        oom_score=-700,
        confined=False,
    )


def provisioner_service() -> Service:
    """What brings in the models that are not in the image."""
    directories = (
        *(Directory(path, "0755") for path in (arriving.RUNTIME, MARKERS, arriving.MODELS)),
        Directory(arriving.STATE, "0700"),
    )
    return Service(
        order=80,
        name=arriving.USER,
        summary="Provisioner: brings in the models that are not in the image",
        command=(arriving.PROGRAM_PATH, "run"),
        user=arriving.USER,
        group=arriving.USER,
        directories=directories,
        writable=tuple(directory.path for directory in directories),
        stop_seconds=15,
        longest_delay=60,
        oom_score=300,
        exemptions=arriving.EXEMPTIONS,
    )


def attestor_service(loaded: LoadedSpec) -> Service:
    """What answers with evidence; last but for ssh, as nobody asks before an engine serves."""
    own = Directory(attestor.RUNTIME, "2750", "hal-gateway")  # what is in it gets the group, which may ask
    return Service(
        order=97,
        name=attestor.USER,
        summary="Attestor: answers with evidence of what booted",
        command=(attestor.PROGRAM_PATH,),
        before=attestor.ACCESS,
        user=attestor.USER,
        group=attestor.USER,
        directories=(own,),
        # A path that is not there would be an error, and no TEE may be there: what it may write, modes bound.
        writable=(own.path, *(("/sys",) if attestor.confidential(loaded) else ())),
        umask="0007",
        longest_delay=60,
        oom_score=-500,
        exemptions=attestor.exemptions(loaded),
    )


def engine_service(engine: Engine, gpu: Gpu | None) -> Service:
    """The service of an engine, out of its file alone."""
    state = f"/var/lib/{engine.state_directory}" if engine.state_directory else None
    cache = f"/var/cache/{engine.cache_directory}" if engine.cache_directory else None
    own = tuple(Directory(path, "0700") for path in (state, cache) if path)
    # Where its launcher says how the engine is.
    own = (*own, Directory(f"{launching.RUNTIME}/{engine.name}", "0755"))
    return Service(
        order=96,
        name=engine.name,
        summary=engine.summary,
        command=tuple(quoted(argument) for argument in launching.command(engine)),
        user=engine.user,
        group=engine.group,
        directories=own,
        writable=(*(directory.path for directory in own), "/tmp", "/var/tmp"),
        environment=f"/etc/hal/engines/{engine.name}.env",
        stop_seconds=engine.stop_timeout,
        longest_delay=60,
        oom_score=500,
        exemptions=systemd.exemptions(engine, gpu),
        working_directory=state or "/",
        state_file=f"{launching.RUNTIME}/{engine.name}/state",
        slice=SLICE,
        pins_memory=gpu is not None,
    )


def quoted(argument: str) -> str:
    """An argument for the shell: `${NAME}` stays a variable, a whole word `$NAME` becomes several words.

    All else is taken as it is.
    """
    if re.fullmatch(r"\$\w+", argument) or (argument and not _NEEDS_QUOTES.search(argument)):
        return argument
    parts = re.split(r"(\$\{\w+\})", argument)
    escaped = [part if index % 2 else re.sub(r'(["\\`$])', r"\\\1", part) for index, part in enumerate(parts)]
    return '"' + "".join(escaped) + '"'


def _program(template: str, loaded: LoadedSpec, **values: object) -> RenderedFile:
    return RenderedFile(text(template, loaded, **values).content, PROGRAM)
