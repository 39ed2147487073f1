"""TVM's RPC tracker as a client sees it: which servers it has, and the next free one."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import struct
from collections.abc import Iterator

from tvm.rpc.base import RPC_TRACKER_MAGIC, TrackerCode, recvall, recvjson, sendjson

from edgenext_tvm.errors import UserError

ANSWER_TIMEOUT_S = 10.0


@dataclasses.dataclass(frozen=True)
class Offer:
    """A server that the tracker holds for one client: a connection with `match_key` within seconds gets it."""

    host: str
    port: int
    match_key: str

    @property
    def address(self) -> str:
        """HOST:PORT"""
        return f"{self.host}:{self.port}"


@dataclasses.dataclass(frozen=True)
class Tracker:
    """The tracker at host and port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Tracker:
        """The tracker that "HOST:PORT" names. UserError if it names none."""
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise UserError(f"tracker '{text}' is not HOST:PORT; for example 192.168.1.10:9190")
        return cls(host, int(port))

    @property
    def address(self) -> str:
        """HOST:PORT"""
        return f"{self.host}:{self.port}"

    @contextlib.contextmanager
    def _conversation(self) -> Iterator[socket.socket]:
        try:
            with socket.create_connection((self.host, self.port), timeout=ANSWER_TIMEOUT_S) as sock:
                sock.sendall(struct.pack("<i", RPC_TRACKER_MAGIC))
                if struct.unpack("<i", recvall(sock, 4))[0] != RPC_TRACKER_MAGIC:
                    raise UserError(f"what listens on {self.address} is not TVM's RPC tracker; {self._advice}")
                yield sock
        except OSError as error:
            raise UserError(
                f"no RPC tracker answers on {self.address} ({error.strerror or error}); {self._advice}"
            ) from None

    @property
    def _advice(self) -> str:
        ports = f"--port {self.port} --port-end {self.port + 1}"
        return f"start one there: python -m tvm.exec.rpc_tracker --host 0.0.0.0 {ports}"

    def servers(self) -> dict[str, list[str]]:
        """The addresses of the registered servers, busy ones too, by key. UserError if the tracker does not answer."""
        with self._conversation() as sock:
            sendjson(sock, [TrackerCode.SUMMARY])
            _, summary = recvjson(sock)
        found: dict[str, list[str]] = {}
        for info in summary["server_info"]:
            host, port = info["addr"]
            found.setdefault(info["key"].removeprefix("server:"), []).append(f"{host}:{port}")
        return {key: sorted(addresses) for key, addresses in sorted(found.items())}

    def request(self, key: str, timeout_s: float | None = None) -> Offer:
        """The next free server of `key`. Blocks while there is none, at most `timeout_s`: then TimeoutError."""
        with self._conversation() as sock:
            sendjson(sock, [TrackerCode.REQUEST, key, "", 1])
            sock.settimeout(timeout_s)
            try:
                _, (host, port, match_key) = recvjson(sock)
            except TimeoutError:
                pass
            else:
                return Offer(host, int(port), match_key)
        raise TimeoutError(f"no server of key '{key}' was free within {timeout_s:g} s")
