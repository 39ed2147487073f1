"""Ctrl-C that loses nothing: it ends a wait for the measurer at once, and anything else at the next safe point."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Interruptible:
    """While entered, SIGINT raises KeyboardInterrupt only inside `waiting()` and in `check()`; twice, at once."""

    def __init__(self) -> None:
        self.requested = False
        self._is_waiting = False
        self._previous: Any = None

    def __enter__(self) -> Interruptible:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._is_waiting or self.requested:
            self._is_waiting = False
            raise KeyboardInterrupt
        self.requested = True

    def check(self) -> None:
        """Raise KeyboardInterrupt if one was asked for."""
        if self.requested:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """The block may be cut short anywhere."""
        self.check()
        self._is_waiting = True
        try:
            yield
        finally:
            self._is_waiting = False
