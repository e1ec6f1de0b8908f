"""What networks do to a transfer, as a table: misdeeds by protocols, and how each has to end.

`.venv/bin/python -m tests.services.provision_cases` runs them all and prints attempts and bytes.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

from services.provisioner.config import Config, Mirrors, Policy
from services.provisioner.core.policy import End, Failure, Schedule, failed
from services.provisioner.network.places import places
from services.provisioner.network.session import Network
from services.provisioner.network.transfer import (
    Limits,
    Part,
    PermanentError,
    StoppedError,
    TransientError,
    fetch,
)
from services.provisioner.pins import HttpsSource, HuggingfaceSource, OllamaSource, PinnedFile
from tests.misbehaving.hub import add_repository
from tests.misbehaving.registry import add_tag
from tests.misbehaving.server import Fault, MisbehavingServer, misbehaving_server

CONTENT = random.Random(5).randbytes(1_000_003)
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PROTOCOLS = ("https", "huggingface", "ollama")
STALL = 1.0
REVISION = "5" * 40
PATIENT = Policy(stall=STALL)
"""The default, but for the stall: time between attempts is not waited for, but counted."""


@dataclass(frozen=True)
class World:
    """A file that is to be had by one protocol: `front` is the path that is asked, `back` where bytes are."""

    file: PinnedFile
    config: Config
    server: MisbehavingServer
    front: str
    back: str


def settings(**options: object) -> Config:
    """A configuration of which only what concerns the network counts."""
    return Config((), "", "", "", "")._replace(**options)  # type: ignore[arg-type]


def world(server: MisbehavingServer, protocol: str) -> World:
    """The file at a server that speaks the protocol; redirects are as in the real ones."""
    server.clear()
    if protocol == "https":
        front = back = "/files/model.gguf"
        server.files[front] = CONTENT
        source = HttpsSource(server.url + front)
        return World(PinnedFile("model.gguf", SIZE, SHA256, source), settings(), server, front, back)
    if protocol == "huggingface":
        repository = add_repository(server, "org/tiny", REVISION, {"model.gguf": CONTENT})
        hub = HuggingfaceSource("org/tiny", REVISION, "model.gguf")
        config = settings(mirrors=Mirrors(huggingface=(server.url,)), mirrors_only=True)
        file = PinnedFile("model.gguf", SIZE, SHA256, hub)
        return World(file, config, server, repository.resolve("model.gguf"), repository.stored(CONTENT))
    tag = add_tag(server, "library/tiny", "135m", {"model": CONTENT})
    file = PinnedFile(f"blobs/sha256-{SHA256}", SIZE, SHA256, OllamaSource("library/tiny", "135m"))
    config = settings(mirrors=Mirrors(ollama=(server.url,)), mirrors_only=True)
    return World(file, config, server, f"/v2/library/tiny/blobs/sha256:{SHA256}", tag.stored(SHA256))


@dataclass
class Outcome:
    """How it ended: "" for the right bytes, else the error; bytes by the client's own count."""

    error: str
    attempts: int
    fetched: int
    waited: float
    errors: list[str] = field(default_factory=list)

    @property
    def again(self) -> int:
        """Bytes that were fetched though they had been held."""
        return max(0, self.fetched - SIZE) if not self.error else 0


def bring(
    world: World,
    folder: Path,
    *,
    policy: Policy = PATIENT,
    network: Network | None = None,
    restarts: bool = False,
    limits: Limits | None = None,
    content: bytes = CONTENT,
) -> Outcome:
    """Fetch by the policy, on a clock of our own. `restarts`: as if the daemon were killed between attempts.

    Asserts that what it brings is `content`, and removes it.
    """
    network = network or Network(world.config)
    where, schedule, now = places(world.config, world.file), Schedule(), 0.0
    outcome = Outcome("", 0, 0, 0.0)
    path = folder / world.file.sha256
    part = Part(path, world.file.size)

    def progress(count: int) -> None:
        outcome.fetched += count

    while True:
        outcome.attempts += 1
        permanent = wrong = False
        retry_after = None
        try:
            fetch(
                world.file,
                where[schedule.place],
                part,
                network=network,
                limits=limits or Limits(stall=policy.stall),
                stop=threading.Event(),
                progress=progress,
            )
            part.close()
            assert path.read_bytes() == content
            path.unlink()
            path.with_name(f"{path.name}.json").unlink(missing_ok=True)
            outcome.waited = now
            return outcome
        except PermanentError as error:
            words, permanent = str(error), True
        except TransientError as error:
            words, wrong, retry_after = str(error), error.wrong_bytes, error.retry_after
        assert not isinstance(words, StoppedError)
        assert "signature" not in words and "\n" not in words, words
        outcome.errors.append(words)
        failure = Failure(schedule.place, words, part.size, permanent, wrong, retry_after)
        schedule = failed(schedule, policy, len(where), world.file.size, failure, now, 0.5)
        if schedule.end is not End.NONE:
            part.close()
            outcome.error, outcome.waited = schedule.error, now
            return outcome
        now = max(now, schedule.at)
        if restarts:
            part.close()
            part = Part(path, world.file.size)


@dataclass(frozen=True)
class Case:
    """Misdeeds, one for each request, and the end that is wanted.

    `error`: words of the error, where it is one. `again`: the most bytes that may come twice, as a share.
    `front`: what is asked first misbehaves, and not what redirects lead to. `always`: without an end.
    """

    name: str
    faults: tuple[Fault, ...] = ()
    attempts: int = 2
    again: float = 0.0
    error: str = ""
    front: bool = False
    always: Fault | None = None
    waits: float = 0.0
    before: Callable[[World], None] | None = None


def stall(case: Case) -> float:
    """Its stall time-out: only where there is a stall does a slow moment of this machine look like one."""
    faults = [*case.faults, *([case.always] if case.always else [])]
    return STALL if any(fault.kind in ("stall", "silent", "drip") for fault in faults) else 20.0


def at(share: float) -> int:
    """So many bytes of the file."""
    return int(SIZE * share)


def _circle(world: World) -> None:
    world.server.redirects[world.back] = world.server.url + world.back


def _hops(world: World) -> None:
    """Two more redirects, relative and absolute."""
    content = world.server.files.pop(world.back)
    world.server.redirects[world.back] = "/hop"
    world.server.redirects["/hop"] = f"{world.server.url}/there?signature=secret"
    world.server.files["/there"] = content


def _gone(world: World) -> None:
    world.server.files.pop(world.back)


def _shorter(world: World) -> None:
    world.server.files[world.back] = CONTENT[: at(0.3)]


def _later(seconds: float) -> tuple[tuple[str, str], ...]:
    """Headers of a server whose clock is at 1970 as well."""
    return (("Date", formatdate(1000, usegmt=True)), ("Retry-After", formatdate(1000 + seconds, usegmt=True)))


RESET = Fault("reset", at(0.4))

CASES = (
    Case("nothing", attempts=1),
    Case("stalls at 40 %", (Fault("stall", at(0.4)),)),
    Case("stalls before the first byte", (Fault("stall"),)),
    Case("never answers, once", (Fault("silent"),), front=True),
    Case("resets at 40 %", (RESET,)),
    Case("resets at each tenth", tuple(Fault("reset", at(0.1)) for _ in range(9)), 10),
    Case("closes at 40 % of a 200", (Fault("truncate", at(0.4)),)),
    Case("says 200 and the length of 40 %", (Fault("short", at(0.4)),)),
    Case("promises more than it has", (Fault("long"),)),
    Case("no length", (Fault("unsized"),), 1),
    Case("no length, and more than is pinned", (Fault("more"),), 1, again=0.3),
    Case("wrong bytes once", (Fault("wrong"),), again=1.0),
    Case("wrong bytes always", always=Fault("wrong"), error="wrong bytes: sha256"),
    Case(
        "a file of another length", before=_shorter, error="its file has 300,000 bytes, pinned are 1,000,003"
    ),
    Case("compressed once", (Fault("gzip"),)),
    Case("503, then fine", (Fault("status"), Fault("status")), 3, waits=15.0),
    Case("503 for ever", always=Fault("status"), attempts=20, error="HTTP 503", waits=3600.0),
    Case(
        "429, Retry-After: 42", (Fault("status", status=429, headers=(("Retry-After", "42"),)),), waits=42.0
    ),
    Case("503, Retry-After: a date", (Fault("status", headers=_later(77)),), waits=77.0),
    Case(
        "429, Retry-After: a year",
        (Fault("status", status=429, headers=(("Retry-After", "31536000"),)),),
        waits=600.0,
    ),
    Case("a slow drip", (Fault("drip", at(0.8), pace=400_000),), 1),
    Case("two more redirects", before=_hops, attempts=1),
    Case("redirects in a circle", before=_circle, attempts=20, error="redirects more than 5 times"),
    Case(
        "redirects to nowhere",
        always=Fault("redirect", target="ftp://a.test/x"),
        attempts=1,
        error="no web address",
    ),
    Case("no Range, resets at 40 %", (RESET, Fault("no-range")), again=0.4),
    Case(
        "no Range, resets at 40 % and 20 %", (RESET, Fault("reset", at(0.2)), Fault("no-range")), 3, again=0.6
    ),
    Case("another ETag after a reset", (RESET, Fault("changed")), again=0.4),
    Case("a range that begins too early", (RESET, Fault("wrong-range")), again=0.001),
    Case("ranges of a tenth at most", (RESET, *(Fault("little", at(0.1)) for _ in range(9))), 2),
    Case("what answers is no HTTP", (Fault("garbage"),), front=True),
    Case("404", before=_gone, attempts=1, error="HTTP 404"),
    Case("401", always=Fault("status", status=401), front=True, attempts=1, error="HTTP 401"),
    Case("403", always=Fault("status", status=403), front=True, attempts=1, error="HTTP 403"),
    Case("410", always=Fault("status", status=410), front=True, attempts=1, error="HTTP 410"),
)


def run(case: Case, server: MisbehavingServer, protocol: str, folder: Path) -> Outcome:
    """Play a case and assert its end."""
    made = world(server, protocol)
    if case.before:
        case.before(made)
    path = made.front if case.front else made.back
    server.faults[path] = [*case.faults, *([case.always] * 50 if case.always else [])]
    outcome = bring(made, folder, policy=PATIENT._replace(stall=stall(case)))
    assert case.error in outcome.error and bool(case.error) == bool(outcome.error), outcome
    assert outcome.attempts == case.attempts, outcome
    assert outcome.again <= case.again * SIZE, outcome
    assert outcome.waited >= case.waits, outcome
    return outcome


def main() -> None:
    """Run all cases and print them."""
    print(f"a file of {SIZE:,} bytes; stall time-out {STALL:g} s; policy: {PATIENT.attempts} attempts\n")
    print(f"{'the network':36}{'protocol':13}{'attempts':>9}{'fetched':>11}{'again':>8}{'waited':>9}  end")
    with misbehaving_server() as server, tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(CASES):
            for protocol in PROTOCOLS:
                into = Path(folder) / f"{number}-{protocol}"
                into.mkdir()
                got = run(case, server, protocol, into)
                end = got.error.partition(": ")[2] if got.error else "right bytes"
                print(
                    f"{case.name:36}{protocol:13}{got.attempts:9}{got.fetched:11,}"
                    f"{got.again / SIZE:8.1%}{got.waited:8.0f}s  {end}"
                )


if __name__ == "__main__":
    main()
