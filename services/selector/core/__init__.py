"""What the selector decides: a pure function `(state, event, now) → (state, actions)`.

`now` is in seconds of a monotonic clock. Nothing here reads a clock, a file or a socket; the daemon
performs the actions and brings their results back as events.

The state says what is wanted and what was seen; each step compares the two and asks for what is missing.
So it does not matter in which order things happen, whether an answer is lost, or where a selector before
this one has stopped. One server of the gateway takes requests, that of the active engine.

Who performs the actions needs this module only.
"""

from __future__ import annotations

from .events import *  # noqa: F403
from .reasons import explain as explain
from .reasons import serving as serving
from .reasons import target as target
from .records import *  # noqa: F403
from .state import *  # noqa: F403
from .steps import initial as initial
from .steps import next_due as next_due
from .steps import step as step
from .switching import refusal as refusal
