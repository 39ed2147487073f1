"""One trial on one RPC server: a session of its own, the library uploaded, timed and removed.

Runs in a worker process, because a call to a board that no longer answers never returns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import tvm
from tvm import rpc

from edgenext_tvm.tune.rpc_build import PACKED_SYMBOL, Artifact
from edgenext_tvm.tune.rpc_tracker import Offer, Tracker

_LIBRARY = "enx_candidate.so"
_SYSFS = {
    "governor": "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "temperature_millicelsius": "/sys/class/thermal/thermal_zone0/temp",
    "throttled_flags": "/sys/devices/platform/soc/soc:firmware/get_throttled",
}
_LLVM = {"triple": "target.llvm_get_system_triple", "cpu": "target.llvm_get_system_cpu"}


@dataclasses.dataclass(frozen=True)
class Timing:
    """How a candidate is timed, as tvm.runtime.Module.time_evaluator has it.

    repeat         numbers per candidate
    number         calls per number at least
    min_repeat_ms  and as many as last this long
    before_repeat  name of a function registered on the server that runs before each number; "" for none
    """

    repeat: int = 5
    number: int = 1
    min_repeat_ms: int = 20
    before_repeat: str = ""


def trial_job(tracker: Tracker, key: str, artifact: Artifact, timing: Timing, timeout_s: float) -> Iterator[tuple]:
    """Time an artifact on the next free server of `key`.

    Yields ("queued", tracker) when the wait begins, ("offered", address) when the tracker gives a server, ("running",
    address) when its session stands. Ends with ("done", seconds), ("failed", text) where the candidate is at fault, or
    ("lost", text) where the server is gone. The server ends the session itself after `timeout_s`, and is free again.
    """
    yield "queued", tracker.address
    offer = tracker.request(key)
    yield "offered", offer.address
    try:
        session = _connect(offer, timeout_s)
    except Exception as error:
        yield "lost", f"no connection: {_first_line(error)}"
        return
    yield "running", offer.address
    try:
        ended: tuple = ("done", _time(session, artifact, timing))
    except Exception as error:
        if "RPCSessionTimeoutError" in str(error):
            ended = ("failed", f"did not end within {timeout_s:g} s on {offer.address}; the server ended it")
        else:
            ended = ("failed" if _answers(session) else "lost", _first_line(error))
    # the session ends when nothing refers to it, and the server is free only then
    del session
    gc.collect()
    yield ended


def _connect(offer: Offer, timeout_s: float) -> Any:
    # the server parses a float; the client's own argument would print an int as it is
    return rpc.connect(offer.host, offer.port, offer.match_key, session_timeout=timeout_s)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # TVM puts the reason last, after its own stack
    reason = next((line for line in lines if "Error" in line or "error" in line), lines[0] if lines else "")
    return f"{type(error).__name__}: {reason[:300]}"


def _answers(session: Any) -> bool:
    try:
        session.get_function("tvm.rpc.server.upload")
    except Exception:
        return False
    return True


def _time(session: Any, artifact: Artifact, timing: Timing) -> tuple[float, ...]:
    device = session.cpu()
    session.upload(bytearray(artifact.library), _LIBRARY)
    try:
        module = session.load_module(_LIBRARY)
        arguments = [
            tvm.runtime.tensor(value, device) if isinstance(value, np.ndarray) else tvm.runtime.empty(*value, device)
            for value in artifact.arguments
        ]
        evaluate = module.time_evaluator(
            PACKED_SYMBOL,
            device,
            number=timing.number,
            repeat=timing.repeat,
            min_repeat_ms=timing.min_repeat_ms,
            f_preproc=timing.before_repeat,
        )
        return tuple(float(seconds) for seconds in evaluate(*arguments).results)
    finally:
        # a lost server removes its folder itself
        with contextlib.suppress(Exception):
            session.remove(_LIBRARY)


def describe_job(tracker: Tracker, key: str, servers: int, wait_s: float) -> Iterator[tuple]:
    """Ask up to `servers` free servers what they are: ("server", address, facts) for each, then ("done",).

    Facts that a server does not tell are None: over RPC only what its processor and file system give away is readable.
    """
    seen: set[str] = set()
    for _ in range(2 * servers):
        if len(seen) == servers:
            break
        try:
            offer = tracker.request(key, wait_s)
            session = _connect(offer, 10 * wait_s)
        except Exception:
            break
        if offer.address not in seen:
            seen.add(offer.address)
            yield "server", offer.address, _facts(session)
        del session
        gc.collect()
    yield ("done",)


def _facts(session: Any) -> dict[str, str | None]:
    facts: dict[str, str | None] = {}
    for name, function in _LLVM.items():
        facts[name] = None
        with contextlib.suppress(Exception):
            facts[name] = str(session.get_function(function)())
    for name, path in _SYSFS.items():
        facts[name] = None
        with contextlib.suppress(Exception):
            # a file of sysfs claims a whole page
            text = bytes(session.download(path)).split(b"\0")[0].decode().strip()
            facts[name] = text or None
    return facts
