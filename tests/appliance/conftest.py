"""Appliances that are built, booted in QEMU and looked at from inside.

One virtual machine of an image is shared by all tests that only look; tests that break things boot their
own. The images serve a model of the tests' own, whose answer is known and comes in seconds even where
floating point is emulated. `--spec` puts another appliance in its place, `--base buildroot` makes those of
the tests with Buildroot.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import paramiko
import pytest
import requests
import testinfra
from openai import OpenAI
from testinfra.host import Host

from hal.build import Built, build, package_sets, prepare_tools
from hal.cache import Cache
from hal.fetch.fetcher import Fetcher
from hal.fetch.releases import parse_given
from hal.fetch.sources import Mirrors
from hal.inputs import GivenBuildroot, gather
from hal.lock.file import load_lock
from hal.machine import boot
from hal.machine.qemu import Deadline, VirtualMachine, http_probe
from hal.progress import Silent
from hal.sandbox import Sandbox
from hal.spec.loading import LoadedSpec, load_spec
from tests import tiny_model

TOKEN = "a-token-of-the-tests"

TINY = """\
appliance: {{name: {name}, version: 1.0.0}}
base: {base}
variant: {variant}
engines: {engines}
models:
  - name: tiny
    format: gguf
    files:
      - name: tiny.gguf
        size: {size}
        sha256: {sha256}
        source: {{kind: file, path: {path}}}
"""


@dataclass(frozen=True)
class Image:
    """A built appliance."""

    loaded: LoadedSpec
    built: Built
    tools: Sandbox

    def plan(self, run_directory: Path, wishes: boot.Wishes | None = None) -> boot.Plan:
        """A boot of its own: the disk's copy and the log go to `run_directory`, any free port is taken."""
        plan = boot.plan(self.loaded.spec, self.built.directory, wishes or boot.Wishes(port=0))
        return replace(plan, run_directory=run_directory, files=_moved(plan, run_directory))


def _moved(plan: boot.Plan, directory: Path) -> Any:
    firmware = plan.files.firmware
    if firmware is not None and firmware.variables is not None:
        firmware = replace(firmware, variables=directory / firmware.variables.name)
    return replace(plan.files, disk=directory / plan.files.disk.name, firmware=firmware)


@dataclass
class Appliance:
    """A booted appliance, seen from the host."""

    plan: boot.Plan
    vm: VirtualMachine

    @property
    def url(self) -> str:
        return self.plan.url

    def deadline(self, seconds: float) -> Deadline:
        """A deadline of so many seconds with KVM, stretched by what the accelerator costs."""
        return Deadline.after(seconds, self.plan.accelerator)

    def wait_ready(self, seconds: float = 30) -> float:
        """Until an engine serves; the seconds since QEMU's start."""
        return self.vm.wait(
            http_probe(self.plan.port, tls=self.plan.tls), self.deadline(seconds), "an engine"
        )

    def wait_gateway(self, seconds: float = 15) -> float:
        """Until the gateway answers anything; the seconds since QEMU's start."""
        probe = http_probe(self.plan.port, accepts=lambda status: True, tls=self.plan.tls)
        return self.vm.wait(probe, self.deadline(seconds), "the gateway")

    def get(self, path: str, **options: Any) -> requests.Response:
        # The certificate is made at boot: nothing here can know it beforehand.
        return requests.get(f"{self.url}{path}", verify=False, **{"timeout": 30, **options})

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/api/v1/inference/status").json()
        return found

    def openai(self, key: str = "none") -> OpenAI:
        http = httpx.Client(verify=False, timeout=240)
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, timeout=240, max_retries=0, http_client=http)

    def ssh(self) -> Host:
        """testinfra's host inside (debug images only)."""
        assert self.plan.ssh_port is not None, "a production image has no ssh"
        address = f"paramiko://root@127.0.0.1:{self.plan.ssh_port}"
        host = testinfra.get_host(address, ssh_identity_file=str(self.plan.ssh_key), timeout=60)

        def reached() -> bool:
            try:
                return bool(host.run("true").rc == 0)
            except (OSError, paramiko.SSHException):
                return False

        self.vm.wait(reached, self.deadline(15), "ssh")
        return host


def as_user(user: str, group: str, *groups: str) -> str:
    """The words in front of a command that run it as a user, by what every image has."""
    numbers = ", ".join(f'grp.getgrnam("{name}").gr_gid' for name in groups)
    program = (
        f"import grp, os, pwd, sys; os.setgroups([{numbers}]); "
        f'os.setgid(grp.getgrnam("{group}").gr_gid); os.setuid(pwd.getpwnam("{user}").pw_uid); '
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )
    return f"python3 -Ic {shlex.quote(program)}"


Build = Callable[..., Image]
Boot = Callable[..., AbstractContextManager[Appliance]]


@pytest.fixture(scope="session")
def build_image(request: pytest.FixtureRequest) -> Build:
    """Builds the appliance of a spec (what is cached costs nothing); `artifacts` as in `--artifact`.

    `elsewhere` is for images that must not take the place of others of the same name.
    """
    out: Path = request.config.getoption("--out").absolute()

    def made(spec: Path | str, *artifacts: str, elsewhere: Path | None = None) -> Image:
        loaded, lock, reporter = load_spec(spec), load_lock(), Silent()
        usual = out if loaded.spec.base == "debian" else out / loaded.spec.base
        fetcher = Fetcher(Cache(), Mirrors.choose(moment=lock.debian.created))
        inputs = gather(
            package_sets(loaded),
            loaded,
            lock,
            fetcher,
            reporter,
            locked=False,
            given=parse_given(artifacts),
            buildroot=GivenBuildroot.from_environment(),
        )
        return Image(
            loaded, build(loaded, elsewhere or usual, inputs, reporter), prepare_tools(inputs, reporter)
        )

    return made


@pytest.fixture(scope="session")
def write_spec(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Writes a spec that serves the tests' model; `more` is added to it."""
    base: str = request.config.getoption("--base")
    directory = tmp_path_factory.mktemp("specs")
    model = tiny_model.write(directory / "tiny.gguf").read_bytes()

    def write(name: str, variant: str = "debug", more: str = "", engines: str = "[llamacpp]") -> Path:
        path = directory / f"{name}.yaml"
        sha256 = hashlib.sha256(model).hexdigest()
        text = TINY.format(
            name=name,
            base=base,
            variant=variant,
            engines=engines,
            size=len(model),
            sha256=sha256,
            path="tiny.gguf",
        )
        path.write_text(text + more)
        return path

    return write


@pytest.fixture(scope="session")
def image(request: pytest.FixtureRequest, build_image: Build, write_spec: Callable[..., Path]) -> Image:
    """The image that most tests look at."""
    spec = request.config.getoption("--spec")
    if not spec:
        return build_image(write_spec("tiny"))
    return build_image(spec, *request.config.getoption("--artifact"))


@pytest.fixture(scope="session")
def boot_image(tmp_path_factory: pytest.TempPathFactory) -> Boot:
    """Boots an image: `with boot_image(image, change=…) as appliance`. `change` may alter the plan after
    its disk has been made."""

    @contextmanager
    def booted(
        image: Image,
        *,
        wishes: boot.Wishes | None = None,
        directory: Path | None = None,
        change: Callable[[boot.Plan], boot.Plan] = lambda plan: plan,
    ) -> Iterator[Appliance]:
        plan = image.plan(directory or tmp_path_factory.mktemp("run"), wishes)
        plan = change(boot.prepare(plan, image.tools))
        with boot.virtual_machine(plan, image.tools) as vm:
            yield Appliance(plan, vm)
        if directory is None:
            plan.files.disk.unlink(missing_ok=True)

    return booted


@pytest.fixture(scope="session")
def appliance(image: Image, boot_image: Boot) -> Iterator[Appliance]:
    """The shared machine, serving."""
    with boot_image(image) as found:
        found.wait_ready(60)
        yield found


@pytest.fixture(scope="session")
def host(appliance: Appliance) -> Host:
    """testinfra's host inside the shared machine."""
    return appliance.ssh()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A failing test shows the end of the shared machine's serial log."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    machine = getattr(item, "funcargs", {}).get("appliance")
    if report.failed and isinstance(machine, Appliance):
        report.sections.append(("serial log", "\n".join(machine.vm.serial().splitlines()[-40:])))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here boots a machine."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.appliance)
