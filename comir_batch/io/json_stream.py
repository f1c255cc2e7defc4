"""JSON read value by value: memory holds the value at hand, not the file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

_READ = 2**20
_LONGEST_WORD = 16  # of what may be cut in two and is then no JSON: a literal, an escape
_BLANK = " \t\r\n"
_decoder = json.JSONDecoder()


class JsonStream:
    """A window on a JSON text, which moves on value by value and grows to the largest of them.

    Its errors are ValueErrors that name the character at which the text is wrong.

    Parameters
    ----------
    stream : TextIO
        At the start of the text.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._window, self._at, self._passed = "", 0, 0

    def peek(self) -> str:
        """Return the next character that is no blank; empty at the end."""
        while True:
            while self._at < len(self._window):
                if self._window[self._at] not in _BLANK:
                    return self._window[self._at]
                self._at += 1
            if not self._more():
                return ""

    def take(self, character: str) -> bool:
        """Pass the next character that is no blank, if it is this one, and tell whether it was."""
        found = self.peek() == character
        self._at += found
        return found

    def expect(self, character: str) -> None:
        """Pass a character; raises ValueError if another one is next."""
        if not self.take(character):
            raise ValueError(f"no {character} at character {self._passed + self._at}")

    def value(self) -> Any:
        """Pass a value and return it."""
        self.peek()
        while True:
            try:
                value, end = _decoder.raw_decode(self._window, self._at)
            except json.JSONDecodeError as error:
                place = self._passed + error.pos
                if not (self._cut(error) and self._more()):
                    raise ValueError(f"{error.msg} at character {place}") from error
                continue
            if not self._goes_on(end) or not self._more():
                self._at = end
                return value

    def items(self, end: str) -> Iterator[None]:
        """Stand at each item of an array or object in turn, up to its closing bracket, which is passed."""
        if self.take(end):
            return
        yield
        while self.take(","):
            yield
        self.expect(end)

    def end(self) -> None:
        """Raise ValueError if anything follows."""
        if self.peek():
            raise ValueError(f"more than one value, at character {self._passed + self._at}")

    def _cut(self, error: json.JSONDecodeError) -> bool:
        """Tell whether an error may be one only because the window ends there."""
        return len(self._window) - error.pos < _LONGEST_WORD or error.msg.startswith("Unterminated string")

    def _goes_on(self, end: int) -> bool:
        """Tell whether what ends here may be the beginning of a longer number."""
        following = self._window[end : end + _LONGEST_WORD]
        return not following or (len(following) < _LONGEST_WORD and following[0] in ".eE")

    def _more(self) -> bool:
        """Read on, at least as much as is in the window, so that a long value is not begun too often."""
        rest = self._window[self._at :]
        text = self._stream.read(max(_READ, len(rest)))
        self._passed += self._at
        self._window, self._at = rest + text, 0
        return bool(text)
