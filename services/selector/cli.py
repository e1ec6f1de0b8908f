"""`hal-selector`: the daemon, and what operators ask of it. `hal-selector --help` teaches it."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from ..terminal import Failure, ended

if TYPE_CHECKING:
    import argparse

CONFIG = "/etc/hal/selector.json"
TIMEOUT = 10.0
"""Seconds for an answer of the daemon, which gives it at once."""

POLL_INTERVAL = 0.25
WAIT = 300.0
"""Seconds that `--wait` waits where nothing else is said; a start takes its engine's own limit at most."""

GRACE = 10.0
"""Seconds without the daemon that `--wait` bears: it may be starting again."""

ABOUT = """\
Shows and changes which engine serves. All requests go on while engines are switched.

  hal-selector status                     which engine serves, and how all are
  hal-selector explain                    why this one: the hardware, and the last decisions
  hal-selector switch vllm --wait         serve with vllm; back when it does, or with the reason why not
  hal-selector policy auto                let the selector choose, by preference and hardware
  hal-selector policy --prefer ollama,vllm
  hal-selector drain                      let nothing new in; `undrain` takes requests again
  hal-selector reload                     read /var/lib/hal/selector.env and the tokens anew
"""
ENDS = "Exit status: 0 done, 1 it did not work (with the reason), 2 wrong usage."


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 it did not work, 2 wrong usage."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["run"] and len(words) < 3 and words[1:] != ["--help"]:
        from .daemon import main as run  # the daemon's start-up counts: nothing else is imported for it

        return run(*words[1:])
    options = parser().parse_args(words)
    return ended("hal-selector", lambda: options.run(options))


def parser() -> argparse.ArgumentParser:
    """What it understands."""
    import argparse

    whole = argparse.ArgumentParser(
        "hal-selector", description=ABOUT, epilog=ENDS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole.add_argument("--config", default=CONFIG, help=f"the selector's configuration (default: {CONFIG})")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Any, words: str, *, machine: bool = False) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        one.set_defaults(run=run)
        if machine:
            one.add_argument("--json", action="store_true", help="for programs")
        return one

    command("run", _run, "run the daemon; its unit or its init script does this").add_argument(
        "file", nargs="?", default=CONFIG, help="its configuration"
    )
    command("status", _status, "which engine serves, and how all are", machine=True)
    command("explain", _explain, "why this engine: hardware, reasons, the last decisions", machine=True)
    made = command("switch", _switch, "serve with another engine, once it is ready")
    made.add_argument("engine", metavar="ENGINE", help="which; `hal-selector status` lists them")
    made.add_argument("--wait", action="store_true", help="until it serves, or it is clear that it will not")
    made.add_argument(
        "--timeout", type=float, default=WAIT, metavar="S", help=f"seconds that it waits (default: {WAIT:g})"
    )
    made = command("policy", _policy, "who chooses: auto, or an engine that always serves")
    made.add_argument("policy", nargs="?", metavar="auto|ENGINE", help="none: show it")
    made.add_argument("--prefer", metavar="A,B", help="the order in which auto tries the engines")
    made = command("drain", _drain, "let no new requests in; those that are open end by themselves")
    made.add_argument("engine", nargs="?", metavar="ENGINE", help="refuse unless this one is active")
    command("undrain", _undrain, "take requests again")
    command("routes", _routes, "the rules that send requests to an engine of their own", machine=True)
    command("reload", _reload, "read the environment files and the tokens anew; all stays if they are wrong")
    made = command("check", _check, "look at a file without taking it: selector.json, or an environment file")
    made.add_argument("file", metavar="FILE")
    return whole


def _config(options: argparse.Namespace) -> Any:
    from .config import ConfigError, parse

    try:
        with open(options.config, encoding="utf-8") as file:  # noqa: PTH123 (pathlib costs at start-up)
            return parse(file.read())
    except OSError as error:
        raise Failure(f"{options.config}: {error.strerror}") from None
    except (ConfigError, ValueError) as error:
        raise Failure(f"{options.config}: {error}") from None


def ask(path: str, request: dict[str, object]) -> dict[str, Any]:
    """The daemon's answer.

    Raises:
        Failure: it does not run, it does not answer, or it refuses.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(path)
            connection.sendall(json.dumps(request).encode() + b"\n")
            data = b""
            while chunk := connection.recv(65536):
                data += chunk
    except (FileNotFoundError, ConnectionRefusedError):
        raise Failure(f"the selector does not run; `{_start_words()}` starts it") from None
    except PermissionError:
        raise Failure("only root may do this") from None
    except OSError as error:
        raise Failure(f"the selector does not answer: {error}") from None
    if not data:
        raise Failure("only root may do this")
    answer: dict[str, Any] = json.loads(data)
    if "error" in answer:
        raise Failure(answer["error"], answer["code"])
    return answer


def _start_words() -> str:
    systemd = os.path.isdir("/run/systemd/system")  # noqa: PTH112 (sd_booted(3))
    return "systemctl start hal-selector" if systemd else "/etc/init.d/S70hal-selector start"


def _say(options: argparse.Namespace, **request: object) -> dict[str, Any]:
    return ask(_config(options).control_socket, request)


def _run(options: argparse.Namespace) -> int:
    from .daemon import main as run

    return run(options.file)


def _status(options: argparse.Namespace) -> int:
    from .tables import status

    answer = _say(options, do="status")
    print(json.dumps(answer, indent=2) if options.json else status(answer))
    return 0


def _explain(options: argparse.Namespace) -> int:
    from .tables import explained

    answer = _say(options, do="explain")
    print(json.dumps(answer, indent=2) if options.json else explained(answer))
    return 0


def _switch(options: argparse.Namespace) -> int:
    config = _config(options)
    begun = ask(config.control_socket, {"do": "switch", "engine": options.engine})
    if not options.wait:
        print(f"switching to {options.engine}: `hal-selector status` says how far it is")
        return 0
    print(wait(config.control_socket, options.engine, begun["at"], options.timeout))
    return 0


def wait(path: str, engine: str, since: float, seconds: float) -> str:
    """Return, with words for people, once `engine` serves after a command of the time `since`.

    Raises:
        Failure: it will not, with the reason; or not within `seconds`.
    """
    began = time.monotonic()
    answered, reason = began, ""
    while (now := time.monotonic()) - began < seconds:
        try:
            found = ask(path, {"do": "status"})
            answered = now
        except Failure:
            if now - answered > GRACE:
                raise
            time.sleep(POLL_INTERVAL)
            continue
        last = found["last_switch"]
        if found["active"] == engine and found["serving"] and found["switch"] is None:
            return f"{engine} serves ({now - began:.1f} s)"
        if last is not None and last["to"] == engine and last["ended"] >= since and not last["ok"]:
            raise Failure(f"{engine} does not serve: {last['reason']}; {found['active'] or 'no engine'} does")
        if found["commanded"] != engine and found["switch"] is None and found["policy"] != engine:
            raise Failure(f"{engine} does not serve: the command was taken back")
        switch = found["switch"]
        reason = switch["stage"] if switch else _reason(found, engine)
        time.sleep(POLL_INTERVAL)
    raise Failure(f"{engine} does not serve after {seconds:g} s ({reason}); it goes on trying")


def _reason(found: dict[str, Any], name: str) -> str:
    return next((str(engine["reason"]) for engine in found["engines"] if engine["name"] == name), "")


def _policy(options: argparse.Namespace) -> int:
    if options.policy is None and options.prefer is None:
        found = _say(options, do="status")
        print(f"{found['policy']} (preference: {', '.join(found['preference'])})")
        return 0
    prefer = [name.strip() for name in (options.prefer or "").split(",") if name.strip()]
    if options.prefer is not None and not prefer:
        raise Failure("--prefer takes names of engines, with commas between them", 2)
    found = _say(options, do="policy", policy=options.policy or "", prefer=prefer)
    print(f"policy {found['policy']} (preference: {', '.join(found['preference'])})")
    return 0


def _drain(options: argparse.Namespace) -> int:
    _say(options, do="drain", engine=options.engine or "")
    print("no new requests are served; `hal-selector undrain` takes them again")
    return 0


def _undrain(options: argparse.Namespace) -> int:
    _say(options, do="undrain")
    print("requests are served")
    return 0


def _reload(options: argparse.Namespace) -> int:
    _say(options, do="reload")
    print("reloaded")
    return 0


def _routes(options: argparse.Namespace) -> int:
    from .routes import ordered, parse
    from .tables import routes

    path = _config(options).routes_file
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            table = parse(file.read())
    except OSError as error:
        raise Failure(f"{path or 'the routes'}: {error.strerror}") from None
    except ValueError as error:
        raise Failure(f"{path}: {error}") from None
    rules = [table.rules[place] for place in ordered(table.rules)]
    print(json.dumps([rule._asdict() for rule in rules], indent=2) if options.json else routes(rules))
    return 0


def _check(options: argparse.Namespace) -> int:
    from . import environment
    from .config import ConfigError, parse

    try:
        with open(options.file, encoding="utf-8") as file:  # noqa: PTH123
            text = file.read()
        if options.file.endswith(".json"):
            engines = ", ".join(engine.name for engine in parse(text).engines)
            print(f"{options.file} is good: {engines}")
            return 0
        config = _config(options)
        wanted = environment.applied(config, environment.parse(text, options.file))
    except OSError as error:
        raise Failure(f"{options.file}: {error.strerror}") from None
    except (ConfigError, ValueError) as error:
        raise Failure(f"{options.file}: {error}") from None
    except environment.VariableError as error:
        raise Failure(str(error)) from None
    print(f"{options.file} is good: {environment.BACKEND}={wanted.backend or config.policy}")
    return 0
