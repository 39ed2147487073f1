"""The one exception type that stands for a user's mistake."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake the user can correct: the message names what was given, what is allowed and what to try."""
