"""How the processes of a task find each other: the leader listens, and a file says where and by which key.

The file lies in the sweep's directory, which all of them share, for as long as somebody is missing. After
that they talk over their connections alone, so that each of them learns of the end of another at once, on
whatever node, and nothing waits for a network file system to show a change.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from orchestrator.sweep.files import replace_atomic
from orchestrator.worker.place import Place

HERE = "127.0.0.1"
# The processes of a job are started together; a node may be slow to mount what it needs.
MEET_SECONDS = 300.0
# One message of ours is small, and never under way for so long.
MESSAGE_SECONDS = 10.0
PAUSE_SECONDS = 0.2
_MOST_BYTES = 2**22


class PeersLost(Exception):
    """A process of the task did not come, or is gone: the trial can't be trained without it."""


@dataclass(frozen=True, slots=True)
class Leader:
    """A follower's way to its leader, and the address by which it got there."""

    connection: Connection
    address: str


def gather(file: Path, place: Place, patience: float = MEET_SECONDS) -> dict[int, Connection]:
    """Wait for all other processes of a task; returns the connection to each, by rank.

    Args:
        file: where they look for the leader; it is gone afterwards.
        place: of the leader.
        patience: seconds.

    Raises:
        PeersLost: not all of them came.
    """
    met: dict[int, Connection] = {}
    key = secrets.token_hex(32)
    deadline = time.monotonic() + patience
    try:
        with _listening(place) as listener:
            _announce(file, listener.getsockname()[1], key)
            listener.settimeout(PAUSE_SECONDS)
            while len(met) < place.count - 1:
                with contextlib.suppress(TimeoutError):
                    rank, connection = _admit(listener.accept()[0], key)
                    if rank is not None:
                        met[rank] = connection
                if time.monotonic() > deadline:
                    missing = ", ".join(str(r) for r in range(1, place.count) if r not in met)
                    came = f"{len(met) + 1} of {place.count} processes"
                    raise PeersLost(f"within {patience:g} s came {came}; missing: rank {missing}")
    except BaseException:
        for connection in met.values():
            connection.close()
        raise
    finally:
        file.unlink(missing_ok=True)
    return dict(sorted(met.items()))


def join(file: Path, place: Place, over: Callable[[], bool], patience: float = MEET_SECONDS) -> Leader | None:
    """Find the leader; None when there is nothing to follow it in.

    Args:
        file: that the leader writes.
        place: of this process.
        over: says whether nobody counts on the task any more, so that a leader may not come either.
        patience: seconds.

    Raises:
        PeersLost: there was no leader.
    """
    deadline = time.monotonic() + patience
    while not over():
        for address, port, key in _announced(file):
            with contextlib.suppress(OSError, EOFError, ValueError):
                return Leader(_introduce(address, port, key, place.rank), address)
        if time.monotonic() > deadline:
            raise PeersLost(f"rank {place.rank} found no leader in {patience:g} s")
        time.sleep(PAUSE_SECONDS)
    return None


def tell(connection: Connection, message: dict[str, Any]) -> None:
    """Send a message.

    Raises:
        OSError: the other process is gone, or does not take it.
    """
    connection.send_bytes(json.dumps(message).encode())


def hear(connection: Connection) -> dict[str, Any] | None:
    """Take a message; None when the other process is gone, or does not make sense."""
    try:
        message = json.loads(connection.recv_bytes(_MOST_BYTES))
    except (OSError, EOFError, ValueError):
        return None
    return message if isinstance(message, dict) else None


@contextlib.contextmanager
def reserved_port() -> Iterator[int]:
    """Keep a free port for the processes of one trial: no other program is given it meanwhile.

    It is bound and not listened at, so that what listens there with SO_REUSEADDR still can: PyTorch's stores
    do, and gRPC.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("", 0))
        yield holder.getsockname()[1]


def _listening(place: Place) -> socket.socket:
    # On one node nobody else needs to reach it.
    return socket.create_server((HERE if place.local_count == place.count else "", 0), backlog=place.count)


def _announce(file: Path, port: int, key: str) -> None:
    # A machine's own name may mean nothing elsewhere; SLURM's address of the first node does.
    known = [os.environ.get(name, "") for name in ("SLURM_LAUNCH_NODE_IPADDR", "SLURMD_NODENAME")]
    addresses = [name for name in (socket.gethostname(), *known) if name]
    where = {"machine": _machine(), "addresses": addresses, "port": port, "key": key}
    file.parent.mkdir(parents=True, exist_ok=True)

    def write(temporary: Path) -> None:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600), "w") as handle:
            json.dump(where, handle)

    replace_atomic(file, write)


def _announced(file: Path) -> list[tuple[str, int, str]]:
    try:
        where = json.loads(file.read_text())
    except (OSError, ValueError):
        return []
    addresses = [HERE] if where["machine"] == _machine() else where["addresses"]
    return [(address, where["port"], where["key"]) for address in addresses]


def _machine() -> str:
    """Return what tells this machine, as far as its network reaches, from any other."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/net"))
    return " ".join(parts)


def _admit(caller: socket.socket, key: str) -> tuple[int | None, Connection]:
    """Let a process in that knows the key; the rank is None for any other, and its connection closed."""
    connection, nonce = _connection(caller), secrets.token_hex(32)
    with contextlib.suppress(OSError):
        tell(connection, {"nonce": nonce})
        answer = hear(connection) or {}
        if hmac.compare_digest(str(answer.get("proof")), _proof(key, nonce, answer.get("rank"))):
            tell(connection, {"welcome": True})
            return int(answer["rank"]), connection
    connection.close()
    return None, connection


def _introduce(address: str, port: int, key: str, rank: int) -> Connection:
    connection = _connection(socket.create_connection((address, port), timeout=MESSAGE_SECONDS))
    try:
        nonce = (hear(connection) or {}).get("nonce")
        tell(connection, {"rank": rank, "proof": _proof(key, nonce, rank)})
        if not (hear(connection) or {}).get("welcome"):
            raise ValueError("another program listens there")
    except BaseException:
        connection.close()
        raise
    return connection


def _proof(key: str, nonce: object, rank: object) -> str:
    return hmac.digest(key.encode(), f"{nonce} {rank}".encode(), "sha256").hex()


def _connection(link: socket.socket) -> Connection:
    link.setblocking(True)
    # Who stops in the middle of a message must not hold up the other one.
    limit = struct.pack("ll", int(MESSAGE_SECONDS), 0)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return Connection(link.detach())
