"""`hal-provision`: the daemon, and what operators ask of it. `hal-provision --help` teaches it."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from ..terminal import Failure, ended

if TYPE_CHECKING:
    import argparse

    from .config import Config

CONFIG = "/etc/hal/provision.json"
FRESH = 15.0
"""Seconds after which a status is too old for a provisioner that runs."""

POLL_INTERVAL = 0.25

ABOUT = """\
Brings the models of this appliance in, verifies them, and shows how far they are.

  hal-provision status                    how each model is; --json for programs
  hal-provision status --wait 600         back when all are ready, or 1 with what is missing
  hal-provision retry smollm2-135m        try again now, and forget earlier failures
  hal-provision import /mnt/model.gguf    take a file that a model lacks, by its SHA-256
  hal-provision import /mnt/pack          take a model pack: its directory, image or partition
  hal-provision verify                    read all models again and compare them with their pins
  hal-provision prune                     remove what no model of this appliance needs
  hal-provision run                       the daemon itself; the init system starts it
"""
ENDS = "Exit status: 0 done, 1 it did not work (with the reason), 2 wrong usage."


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 it did not work, 2 wrong usage."""
    options = parser().parse_args(argv)
    return ended("hal-provision", lambda: options.run(options))


def parser() -> argparse.ArgumentParser:
    """What it understands."""
    import argparse

    whole = argparse.ArgumentParser(
        "hal-provision", description=ABOUT, epilog=ENDS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole.add_argument("--config", default=CONFIG, help=f"the configuration (default: {CONFIG})")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Any, words: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        one.set_defaults(run=run)
        return one

    one = command("status", _status, "show how each model is: state, bytes, rate, attempts, last error")
    one.add_argument("--json", action="store_true", help="for programs")
    one.add_argument("--wait", type=float, metavar="SECONDS", help="wait until all models are ready")
    one = command("run", _run, "run the daemon")
    one.add_argument("--once", action="store_true", help="end when nothing is left to do: 0 if all are ready")
    one = command("retry", _retry, "try a model again now, and forget its failures")
    one.add_argument("model", metavar="MODEL")
    one = command("verify", _verify, "read models again, compare them with their pins, fetch what is wrong")
    one.add_argument("model", metavar="MODEL", nargs="?", default="", help="only this one (default: all)")
    one = command("prune", _prune, "remove models, parts and files that no model of this appliance needs")
    one.add_argument("--old", action="store_true", help="also old models whose new ones are not there yet")
    one = command("import", _import, "take files that models lack out of files, model packs and partitions")
    one.add_argument("paths", metavar="PATH", nargs="+", help="a file, a pack's directory, or a partition")
    return whole


def _config(options: argparse.Namespace) -> Config:
    from .config import ConfigError, read

    try:
        return read(options.config)
    except ConfigError as error:
        raise Failure(str(error)) from None


def _found(config: Config) -> dict[str, Any]:
    try:
        with open(config.status_file, encoding="utf-8") as file:  # noqa: PTH123 (pathlib costs at start-up)
            found: dict[str, Any] = json.load(file)
    except OSError as error:
        raise Failure(f"{config.status_file}: {error.strerror}; {_not_running()}") from None
    except ValueError:
        raise Failure(f"{config.status_file} is damaged; {_not_running()}") from None
    return found


def _not_running() -> str:
    return (
        "does the provisioner run? `systemctl status hal-provision` or `/etc/init.d/S*hal-provision status`"
    )


def _status(options: argparse.Namespace) -> int:
    config = _config(options)
    end = time.monotonic() + (options.wait or 0.0)
    found = _found(config)
    while options.wait and not _all_ready(found) and time.monotonic() < end:
        time.sleep(POLL_INTERVAL)
        found = _found(config)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        from ..terminal import span
        from .tables import status

        print(status(found))
        age = time.time() - found["updated"]
        if age > FRESH:
            print(f"\nthis is {span(age)} old: {_not_running()}", file=sys.stderr)
    if options.wait and not _all_ready(found):
        missing = ", ".join(f"{one['name']} ({one['state']})" for one in _missing(found))
        raise Failure(f"not ready after {options.wait:g} s: {missing}")
    return 0


def _missing(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [model for model in found["models"] if model["state"] != "ready"]


def _all_ready(found: dict[str, Any]) -> bool:
    return not _missing(found)


def _run(options: argparse.Namespace) -> int:
    from .daemon import main as run

    return run(options.config, once=options.once)


def _say(config: Config, descriptor: int | None = None, **command: Any) -> dict[str, Any]:
    """A command's last answer."""
    from .control import ask

    try:
        connection, answers = ask(config.control_socket, command, descriptor)
        with connection:
            for line in answers:
                answer: dict[str, Any] = json.loads(line)
                if "ok" in answer:
                    break
                _progress(answer)
            else:
                raise Failure("the provisioner has ended before it answered")
    except PermissionError:
        raise Failure(f"{config.control_socket}: only root and hal-provision may ask that") from None
    except OSError as error:
        raise Failure(f"{config.control_socket}: {error.strerror}; {_not_running()}") from None
    except ValueError:
        raise Failure("the provisioner's answer is damaged") from None
    if not answer["ok"]:
        raise Failure(answer["error"])
    return answer


def _progress(answer: dict[str, Any]) -> None:
    from .core.space import size

    if sys.stderr.isatty():
        print(f"\r{size(answer.get('bytes', 0))} read ", end="", file=sys.stderr, flush=True)


def _retry(options: argparse.Namespace) -> int:
    _say(_config(options), do="retry", model=options.model)
    print(f"{options.model}: tried again now; `hal-provision status` shows how it goes")
    return 0


def _verify(options: argparse.Namespace) -> int:
    config = _config(options)
    before = {one["name"] for one in _found(config)["models"] if one["state"] == "ready"}
    _say(config, do="verify", model=options.model)
    while any(_reading(one) for one in _chosen(config, options.model)):
        time.sleep(POLL_INTERVAL)
    wrong = []
    for model in _chosen(config, options.model):
        if model["delivery"] not in ("network", "import"):
            print(f"{model['name']}: in a pack, of which the kernel checks each block")
        elif model["state"] == "ready":
            print(f"{model['name']}: as pinned")
        else:
            print(f"{model['name']}: {model['state']}: {model['error'] or model['reason']}")
            wrong += [model["name"]] if model["name"] in before else []
    if wrong:
        raise Failure(f"wrong on the disk, and on their way anew: {', '.join(wrong)}")
    return 0


def _chosen(config: Config, name: str) -> list[dict[str, Any]]:
    return [model for model in _found(config)["models"] if name in ("", model["name"])]


def _reading(model: dict[str, Any]) -> bool:
    return model["state"] == "verifying" or (model["state"] == "ready" and "again" in model["reason"])


def _prune(options: argparse.Namespace) -> int:
    from .core.space import size

    answer = _say(_config(options), do="prune", old=options.old)
    for path in answer["removed"]:
        print(f"removed {path}")
    print(f"{size(answer['bytes'])} given back" if answer["removed"] else "there is nothing to remove")
    return 0


def _import(options: argparse.Namespace) -> int:
    config, failed = _config(options), False
    for path in _given(options.paths):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Failure(f"{path}: {error.strerror}") from None
        try:
            answer = _say(config, descriptor, do="import")
        except Failure as error:
            print(f"hal-provision: {path}: {error}", file=sys.stderr)
            failed = True
        else:
            print(f"{path}: taken: {', '.join(answer['files'])}")
        finally:
            os.close(descriptor)
    return 1 if failed else 0


def _given(paths: list[str]) -> list[str]:
    """Files and partitions; of a directory its pack, or else all files in it."""
    found = []
    for path in paths:
        if not os.path.isdir(path):  # noqa: PTH112 (pathlib costs at start-up)
            found.append(path)
        elif os.path.exists(f"{path}/pack.erofs"):  # noqa: PTH110
            found.append(f"{path}/pack.erofs")
        else:
            inside = sorted(f"{root}/{name}" for root, _, names in os.walk(path) for name in names)
            if not inside:
                raise Failure(f"{path}: there is no file in it")
            found += inside
    return found
