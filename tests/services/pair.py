"""An appliance of two engines on this machine, which its selector starts and stops by the real hal-control.

What is not real is `systemctl`: a shell script that starts and stops processes, and keeps a control group's
`cgroup.events` for each. Both engines are llama.cpp.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hal.image.root import write_files
from hal.render import render
from hal.spec.loading import parse_spec
from tests.services.conftest import DEADLINE, ROOT, Stack, free_port

FIRST, SECOND = "llamacpp", "ollama"

SYSTEMCTL = """\
#!/bin/sh
# start or stop NAME.service: the command of units/NAME, whose end is seen as its control group's.
set -u
home={home}
[ "$1" != --no-block ] || shift
name=${{2%.service}}
group=$home/cgroup/$name
alive() {{ [ -e "$group/pid" ] && kill -0 "$(cat "$group/pid")" 2>/dev/null; }}
case $1 in
start)
	! alive || exit 0
	[ ! -e "$home/units/$name.broken" ] || exit 5
	mkdir -p "$group"
	setsid "$0" run "$name.service" </dev/null >>"$home/$name.log" 2>&1 &
	while [ ! -e "$group/pid" ]; do sleep 0.01; done
	;;
run) # outlives who has started it
	echo "populated 1" >"$group/cgroup.events"
	sh "$home/units/$name" &
	echo $! >"$group/pid"
	wait $!
	rm "$group/pid"
	echo "populated 0" >"$group/cgroup.events"
	;;
stop)
	alive || exit 0
	kill "$(cat "$group/pid")"
	tries=0
	while [ -e "$group/pid" ]; do
		tries=$((tries + 1))
		[ $tries -lt 200 ] || kill -9 "$(cat "$group/pid")"
		sleep 0.02
	done
	;;
esac
"""


class Pair(Stack):
    """The stack of two engines. `start` and `kill` take "gateway", "selector" and "control"."""

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`hal-selector` with these arguments."""
        program = "import sys; from services.selector.cli import main; sys.exit(main())"
        config = str(self.home / "etc/hal/selector.json")
        return subprocess.run(
            [sys.executable, "-c", program, "--config", config, *words],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def said(self, command: str = "status") -> dict[str, Any]:
        """The answer of a command with --json; nothing while the selector does not answer."""
        done = self.cli(command, "--json")
        found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
        return found

    def engine(self, name: str) -> dict[str, Any]:
        """An engine's row of the status."""
        engines: list[dict[str, Any]] = self.said().get("engines", [])
        return next((one for one in engines if one["name"] == name), {})

    def serves(self) -> str:
        """The engine that serves; empty while none does."""
        found = self.said()
        return str(found["active"]) if found.get("serving") and not found["switch"] else ""

    def alive(self, name: str) -> bool:
        """Whether an engine's process is there."""
        return (self.home / "cgroup" / name / "pid").exists()

    def systemctl(self, verb: str, name: str) -> None:
        """What an administrator could do."""
        subprocess.run([self.home / "bin/systemctl", verb, f"{name}.service"], check=True, timeout=30)

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """End a part; hal-control with its shells, as a control group would."""
        if name != "control":
            return super().kill(name, number)
        process = self.processes.pop(name)
        os.killpg(process.pid, number)
        return process.wait(DEADLINE)

    def close(self) -> None:
        """End everything, the engines as well."""
        super().close()
        for name in (FIRST, SECOND):
            if self.alive(name):
                self.systemctl("stop", name)


def _engines(home: Path) -> Path:
    """Plugins: llama.cpp, and the same once more under another name."""
    directory = home / "plugins"
    directory.mkdir()
    text = (ROOT / "hal/engines/llamacpp.yaml").read_text()
    (directory / "llamacpp.yaml").write_text(text)
    text = text.replace("name: llamacpp", "name: ollama").replace("uid: 911", "uid: 913")
    text = text.replace("port: 8080", "port: 8081").replace("user: llamacpp", "user: ollama")
    (directory / "ollama.yaml").write_text(text.replace("group: llamacpp", "group: ollama"))
    return directory


@contextmanager
def pair(
    haproxy: Callable[[Path], list[str]],
    engine_pack: Path,
    tiny: Path,
    selector: str = "{wait: 20, drain: 5}",
    tokens: str = "[]",
    more: str = "",
) -> Iterator[Pair]:
    """The services of the two-engine appliance; nothing is started yet."""
    home = Path(tempfile.mkdtemp(prefix="hal-pair-"))
    port, ports = free_port(), (free_port(), free_port())
    shutil.copy(tiny, home / "tiny.gguf")
    content = tiny.read_bytes()
    loaded = parse_spec(
        f"""\
appliance: {{name: pair, version: '1'}}
variant: debug
engines:
  - {FIRST}: {{port: {ports[0]}, settings: {{context_length: 512}}}}
  - {SECOND}: {{port: {ports[1]}, settings: {{context_length: 512}}}}
models:
  - name: tiny
    format: gguf
    files:
      - name: tiny.gguf
        size: {len(content)}
        sha256: {hashlib.sha256(content).hexdigest()}
        source: {{kind: file, path: tiny.gguf}}
gateway: {{port: {port}, tls: false, tokens: {tokens}}}
selector: {selector}
{more}""",
        home / "spec.yaml",
        engines=_engines(home),
    )
    files = render(loaded, [])
    write_files(files, home)
    for directory in ("gateway", "selector", "control", f"engines/{FIRST}", f"engines/{SECOND}"):
        (home / "run/hal" / directory).mkdir(parents=True)
    for directory in ("var/lib/hal/selector", "bin", "units", "cgroup"):
        (home / directory).mkdir(parents=True)
    changed = [home / "etc/hal" / name for name in ("gateway/haproxy.cfg", "selector.json")]
    for path in (*changed, home / "usr/lib/hal/control"):
        text = path.read_text()
        for top in ("/etc/hal", "/run/hal", "/var/lib/hal"):
            text = text.replace(top, f"{home}{top}")
        text = text.replace("/sys/fs/cgroup/engines.slice/", f"{home}/cgroup/").replace(".service", "")
        path.write_text(text.replace(f':::{port}}}" v4v6', f'127.0.0.1:{port}}}"'))
    systemctl = home / "bin/systemctl"
    systemctl.write_text(SYSTEMCTL.format(home=home))
    systemctl.chmod(0o755)
    for name in (FIRST, SECOND):
        lines = files[f"/etc/hal/engines/{name}.env"].content.splitlines()
        variables = [line for line in lines if line and not line.startswith("#")]
        launcher = home / "units" / f"{name}.py"
        source = (engine_pack / "bin/hal-llamacpp").read_text()
        launcher.write_text(source.replace("/run/hal/engines/llamacpp", f"{home}/run/hal/engines/{name}"))
        words = ["env", *variables, f"LLAMACPP_MODEL={home}/tiny.gguf", sys.executable, "-I", str(launcher)]
        (home / "units" / name).write_text(f"exec {shlex.join(words)}\n")
    (home / "lib").symlink_to(engine_pack / "lib")  # where the launchers look for llama.cpp: beside `units`
    program = "import sys; from services.selector.cli import main; sys.exit(main())"
    commands = {
        "gateway": haproxy(home / "etc/hal/gateway/haproxy.cfg"),
        "selector": [sys.executable, "-c", program, "run", str(home / "etc/hal/selector.json")],
        "control": [
            "setsid",
            "env",
            f"PATH={home}/bin:/usr/bin:/bin",
            "sh",
            str(home / "usr/lib/hal/control"),
        ],
    }
    made = Pair(home, files, commands, port)
    try:
        yield made
    except BaseException:  # a test's own failure: its words are in the logs
        for name in ("control", "gateway", "selector", FIRST, SECOND):
            print(f"--- {name}\n{made.log(name)[-3000:]}")
        raise
    finally:
        made.close()
        shutil.rmtree(home)
