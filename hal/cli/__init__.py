"""The `hal` command: each subcommand parses, calls one function and prints."""

from __future__ import annotations

from hal.cli.main import main

__all__ = ["main"]
