"""A process that builds candidates for its parent: code generators crash and hang, and must not take the tuner along.

Started as `python -m edgenext_tvm.tune.measure_program.build_worker FD`, where FD is one end of a socket pair. Receives
the Board once and answers "ready"; then receives (function as JSON, decisions, name) and answers a BuiltCandidate or
the text of what went wrong, until the socket closes.
"""

from __future__ import annotations

import sys

# TVM imports torch if it is there, for tensors that no build needs: two seconds and 300 MB a worker
sys.modules["torch"] = None  # type: ignore[assignment]

from multiprocessing.connection import Connection  # noqa: E402

_ERROR_LINES = 2
_ERROR_CHARACTERS = 500


def _text_of(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " / ".join(lines[-_ERROR_LINES:])[-_ERROR_CHARACTERS:] or "(no message)"
    return text if type(error).__name__ == "UserError" else f"{type(error).__name__}: {text}"


def serve(connection: Connection) -> None:
    """Answer every request of `connection` until it closes."""
    from edgenext_tvm.tune.measure_program.build_candidate import build_from_json

    board = connection.recv()
    connection.send("ready")
    while True:
        try:
            func_json, decisions, name = connection.recv()
        except EOFError:
            return
        try:
            connection.send(build_from_json(func_json, decisions, name, board))
        except Exception as error:  # whatever a candidate raises is that candidate's result
            connection.send(_text_of(error))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
