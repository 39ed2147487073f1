"""Why an engine does not race: reported in the table, never dropped."""

from __future__ import annotations

REASON_CHARACTERS = 300


class PeerUnavailable(Exception):
    """An engine that could not be installed, converted for, started or believed. Its text is the reason."""


def last_words(output: str) -> str:
    """The last line of a program's output that says something: usually the exception."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:REASON_CHARACTERS] if lines else "no output"
