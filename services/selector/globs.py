"""Globs as languages: whether texts exist that match some of them and none of others, and the shortest.

A glob is text in which `*` stands for any characters, none as well. Everything is exact: globs are run as
automata, side by side, over the characters that occur in them and one more that stands for all others.
"""

from __future__ import annotations

from typing import NamedTuple

STAR = "*"

OTHERS = "xyzabcdefghijklmnopqrstuvwXYZ0123456789-_.~+!$&'(),;=:@%/ABCDEFGHIJKLMNOPQRSTUVW"
"""Where the character that stands for all others is taken from: the first that no glob has."""


class TooInvolvedError(Exception):
    """A question about globs takes more effort than was allowed."""


class Automaton(NamedTuple):
    """A glob as positions in its text, each a bit: which follow on which character.

    `loops` are the positions of stars, where any character stays; `advance` maps a character to the
    positions that it leads on from; `accept` is the bit of the end.
    """

    loops: int
    advance: dict[str, int]
    accept: int
    start: int

    def step(self, positions: int, character: str) -> int:
        """The positions after one more character; 0: the text cannot match any more."""
        moved = (positions & self.advance.get(character, 0)) << 1 | positions & self.loops
        return self.settled(moved)

    def settled(self, positions: int) -> int:
        """Positions with those behind stars, which may stand for nothing.

        What lies before the last star that was reached is left out: all that could still match from there
        can from the star. So there are about as many sets of positions as characters in the glob.
        """
        positions |= (positions & self.loops) << 1
        stars = positions & self.loops
        return positions & -(1 << stars.bit_length() - 1) if stars else positions


_automata: dict[str, Automaton] = {}


def automaton(glob: str) -> Automaton:
    """The automaton of a glob."""
    found = _automata.get(glob)
    if found is None:
        while STAR + STAR in glob:
            glob = glob.replace(STAR + STAR, STAR)
        loops = 0
        advance: dict[str, int] = {}
        for position, character in enumerate(glob):
            if character == STAR:
                loops |= 1 << position
            else:
                advance[character] = advance.get(character, 0) | 1 << position
        found = Automaton(loops, advance, 1 << len(glob), 0)
        found = _automata[glob] = found._replace(start=found.settled(1))
    return found


def matches(glob: str, text: str) -> bool:
    """Whether a text matches a glob."""
    if STAR not in glob:
        return glob == text
    found = automaton(glob)
    positions = found.start
    for character in text:
        positions = found.step(positions, character)
    return bool(positions & found.accept)


def fits(text: str, wanted: frozenset[str], unwanted: frozenset[str]) -> bool:
    """Whether a text matches all of `wanted` and none of `unwanted`."""
    return all(matches(glob, text) for glob in wanted) and not any(matches(glob, text) for glob in unwanted)


class Search:
    """Looks for texts, as long as its effort lasts: an answer is found once and remembered.

    Effort is counted in steps of single automata, a few million a second.
    """

    def __init__(self, effort: int) -> None:
        self.effort = effort
        self._found: dict[tuple[frozenset[str], frozenset[str]], str | None] = {}

    def spend(self, steps: int) -> None:
        """Take steps off the effort.

        Raises:
            TooInvolvedError: nothing is left of it.
        """
        self.effort -= steps
        if self.effort < 0:
            raise TooInvolvedError

    def shortest(self, wanted: frozenset[str], unwanted: frozenset[str]) -> str | None:
        """The shortest text that matches all of `wanted` and none of `unwanted`; None: there is none.

        Raises:
            TooInvolvedError: it cannot be said with the effort that is left.
        """
        self.spend(len(wanted) + len(unwanted))
        literal = next((glob for glob in wanted if STAR not in glob), None)
        if literal is not None:
            return literal if fits(literal, wanted, unwanted) else None
        key = wanted, unwanted
        if key not in self._found:
            self._found[key] = self._search([automaton(g) for g in wanted], [automaton(g) for g in unwanted])
        return self._found[key]

    def _search(self, wanted: list[Automaton], unwanted: list[Automaton]) -> str | None:
        """Breadth first through the sets of positions that all automata are in at the same time."""
        every = [*wanted, *unwanted]
        characters = sorted({character for found in every for character in found.advance}, reverse=True)
        alphabet = [next(c for c in OTHERS + "\x00" if c not in characters), *characters]
        states = [(tuple(found.start for found in every), "")]
        seen = {states[0][0]}
        count = len(wanted)
        for state, text in states:  # which grows meanwhile
            self.spend(len(alphabet) * len(every))
            accepted = [bool(now & found.accept) for now, found in zip(state, every, strict=True)]
            if all(accepted[:count]) and not any(accepted[count:]):
                return text
            for character in alphabet:
                following = tuple(found.step(now, character) for now, found in zip(state, every, strict=True))
                if all(following[:count]) and following not in seen:
                    seen.add(following)
                    states.append((following, text + character))
        return None
