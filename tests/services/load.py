"""Clients under observation: some stream, some ask shortly, and whatever goes wrong for any of them is kept.

They are the real `openai` client without retries of its own. An answer is right when it is the one that the
model is known to give, to its last event: lost, cut, doubled and mixed-up answers are failures, as errors.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx  # noqa: F401 (openai looks for it among what is imported, in the midst of a stream)
import openai

PATIENCE = 120.0
"""Seconds that a client waits for anything: what takes longer is a failure."""


@dataclass(frozen=True)
class Question:
    """What is asked, and the one right answer."""

    model: str
    messages: list[dict[str, str]] = field(default_factory=list)
    prompt: str = ""
    tokens: int = 16
    answer: str = ""

    def options(self, stream: bool) -> dict[str, Any]:
        """The arguments of the client's method."""
        asked: dict[str, Any] = {"messages": self.messages} if self.messages else {"prompt": self.prompt}
        return {
            "model": self.model,
            "max_tokens": self.tokens,
            "temperature": 0,
            **({"stream": True} if stream else {}),
            **asked,
        }


@dataclass(frozen=True)
class Outcome:
    """One request: when it began, seconds to the first bytes and to the end, and what was wrong with it."""

    kind: str
    began: float
    first: float
    took: float
    gap: float
    """The longest time between two events of a stream."""

    problem: str
    model: str = ""


@dataclass(frozen=True)
class Report:
    """What all clients saw."""

    outcomes: tuple[Outcome, ...]
    seconds: float

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The requests that went wrong."""
        return tuple(outcome for outcome in self.outcomes if outcome.problem)

    @property
    def longest_wait(self) -> float:
        """Seconds that a request waited for its first bytes at most."""
        return max((outcome.first for outcome in self.outcomes), default=0.0)

    def count(self, kind: str) -> int:
        """Requests of a kind."""
        return sum(outcome.kind == kind for outcome in self.outcomes)

    def words(self) -> str:
        """For people, in a few lines."""
        firsts = sorted(outcome.first for outcome in self.outcomes) or [0.0]
        gap = max((outcome.gap for outcome in self.outcomes), default=0.0)
        asked = f"{self.count('stream')} streams and {self.count('short')} short requests"
        waits = f"median {firsts[len(firsts) // 2]:.2f} s, p99 {firsts[int((len(firsts) - 1) * 0.99)]:.2f} s"
        lines = [f"{asked} in {self.seconds:.1f} s, {len(self.failed)} failed"]
        lines += [f"  wait for the first bytes: {waits}, longest {firsts[-1]:.2f} s"]
        lines += [f"  longest gap in a stream: {gap:.2f} s"]
        for (kind, problem), count in Counter((o.kind, o.problem) for o in self.failed).most_common(12):
            lines.append(f"  {count} {kind}: {problem}")
        return "\n".join(lines)


class Load:
    """Clients that ask without a break, in a thread of their own, as long as the context lasts."""

    def __init__(
        self,
        url: str,
        question: Question,
        short: Question,
        streaming: int = 32,
        asking: int = 16,
        key: str = "none",
        patience: float = PATIENCE,
    ) -> None:
        self._patience = patience
        self._url, self._key = url, key
        self._question, self._short = question, short
        self._streaming, self._asking = streaming, asking
        self._outcomes: list[Outcome] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._began = 0.0

    def __enter__(self) -> Load:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *ignored: object) -> None:
        """No new requests; those that are open get to their end."""
        self._stopping.set()
        self._thread.join(self._patience + 30)
        assert not self._thread.is_alive(), "a client never came to an end"

    @property
    def done(self) -> int:
        """Requests that have ended so far."""
        return len(self._outcomes)

    def report(self) -> Report:
        """What was seen until now."""
        return Report(tuple(self._outcomes), time.monotonic() - self._began)

    def _run(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        client = openai.AsyncOpenAI(
            base_url=f"{self._url}/v1", api_key=self._key, max_retries=0, timeout=self._patience
        )
        async with client:
            await asyncio.gather(
                *(
                    self._again("stream", lambda: stream(client, self._question))
                    for _ in range(self._streaming)
                ),
                *(self._again("short", lambda: short(client, self._short)) for _ in range(self._asking)),
            )

    async def _again(self, kind: str, ask: Callable[[], Awaitable[Seen]]) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            seen = await ask()
            took = time.monotonic() - began
            first = seen.first - began if seen.first else took
            self._outcomes.append(Outcome(kind, began, first, took, seen.gap, seen.problem))
            if seen.problem:
                await asyncio.sleep(0.05)  # an error in a tight loop would drown all others


@dataclass
class Seen:
    """What came of a request so far: the time of the first bytes, the longest gap, what was wrong."""

    first: float = 0.0
    gap: float = 0.0
    problem: str = ""


async def stream(client: openai.AsyncOpenAI, question: Question) -> Seen:
    """A streamed answer, looked at to its end."""
    seen, last, text, reason = Seen(), 0.0, "", None
    try:
        if question.messages:
            events: Any = await client.chat.completions.create(**question.options(True))
        else:
            events = await client.completions.create(**question.options(True))
        async for event in events:
            now = time.monotonic()
            seen.first = seen.first or now
            seen.gap = max(seen.gap, now - last if last else 0.0)
            last = now
            for choice in event.choices:
                text += (choice.delta.content if question.messages else choice.text) or ""
                reason = choice.finish_reason or reason
    except Exception as error:  # whatever it is: it is what a client saw
        seen.problem = words(error, text)
        return seen
    seen.problem = wrong(question, text, reason)
    return seen


async def short(client: openai.AsyncOpenAI, question: Question) -> Seen:
    """An answer in one piece."""
    seen = Seen()
    try:
        answer = await client.chat.completions.create(**question.options(False))
        seen.first = time.monotonic()
        choice = answer.choices[0]
        seen.problem = wrong(question, choice.message.content or "", choice.finish_reason)
    except Exception as error:
        seen.problem = words(error, "")
    return seen


def wrong(question: Question, text: str, reason: str | None) -> str:
    """What is wrong with an answer that ended without an error; empty when nothing is."""
    if reason is None:
        return f"ended without a finish_reason after {len(text)} characters"
    if text != question.answer:
        same = len(
            list(
                itertools.takewhile(lambda pair: pair[0] == pair[1], zip(text, question.answer, strict=False))
            )
        )
        return f"another answer: {len(text)} characters for {len(question.answer)}, alike for {same}"
    return ""


def words(error: Exception, text: str) -> str:
    """An error as a client sees it, with the code of the gateway's JSON where there is one."""
    code = getattr(error, "code", None)
    status = getattr(error, "status_code", None)
    what = type(error).__name__
    if status is not None:
        return f"{what} {status} {code}"
    cause = error.__cause__
    inner = f" from {type(cause).__name__}" if cause is not None else ""
    begun = " in the middle of an answer" if text else ""
    return f"{what}{inner}: {str(error)[:80]}{begun}"


def ask(url: str, question: Question, key: str = "none") -> Question:
    """The question with the answer that an engine gives now: it has to be the same ever after."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)
    with client:
        if question.messages:
            chat: Any = client.chat.completions.create(**question.options(False))
            text = chat.choices[0].message.content
        else:
            done: Any = client.completions.create(**question.options(False))
            text = done.choices[0].text
    assert text
    return Question(question.model, question.messages, question.prompt, question.tokens, text)
