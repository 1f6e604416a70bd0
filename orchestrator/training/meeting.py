"""How the processes of one run meet at its start and part at its end, however that comes.

They know of each other by the environment, under torchrun's names: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT. Without them a run is alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from orchestrator.errors import StopTrial, UserError
from orchestrator.training.distributed import Peers
from orchestrator.training.models import choose_device

# How long the processes wait for each other at the start, and later for one that does something alone.
MEETING_SECONDS = 300.0
WAITING_SECONDS = 1800.0
# Where a process that fails leaves what failed.
_FAILED = "failed"
# What gloo and torch's store say when the one at the other end is gone.
_GONE = ("connection", "peer", "timed out", "timeout", "socket", "nccl", "gloo")


class PeerLost(RuntimeError):
    """Another process of this run failed, or is gone: what it was at has to be done again."""


@contextmanager
def met(device: str, environment: Mapping[str, str] = os.environ) -> Iterator[Peers]:
    """Meet the other processes of this run, for as long as the context lasts.

    Where one of them fails in it, the others do soon after, with a text that says which and why.

    Args:
        device: as in the job's config: auto, cpu or cuda.
        environment: with torchrun's names.

    Raises:
        UserError: the environment is wrong, or the others did not come.
        PeerLost: another process failed, or is gone.
    """
    count = _number(environment, "WORLD_SIZE", 1)
    if count <= 1:
        yield Peers(device=choose_device(device))
        return
    rank = _number(environment, "RANK")
    if not 0 <= rank < count:
        raise UserError(f"is {rank}, and there are {count} processes", key="RANK")
    own = _own_device(choose_device(device), environment)
    store = _store(environment, rank, count)
    try:
        yield _begun(store, rank, count, own)
        dist.barrier()
    except StopTrial:
        raise
    except BaseException as error:
        failed = _told(store, rank, count, error)
        if failed is None:
            raise
        raise PeerLost(failed) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _store(environment: Mapping[str, str], rank: int, count: int) -> TCPStore:
    """Meet at the address of the environment; process 0 keeps the store.

    Raises:
        UserError: not all came in time.
    """
    port = _number(environment, "MASTER_PORT")
    host = environment.get("MASTER_ADDR")
    if not host:
        raise UserError(f"is not set, and WORLD_SIZE is {count}", key="MASTER_ADDR")
    try:
        return TCPStore(host, port, count, rank == 0, timedelta(seconds=MEETING_SECONDS))
    except (RuntimeError, OSError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"process {rank} of {count} waited in vain for the others at {host}:{port}: {why}",
            hint="Each node has to reach that address and port; GLOO_SOCKET_IFNAME names the network to use",
        ) from error


def _begun(store: TCPStore, rank: int, count: int, device: torch.device) -> Peers:
    """Start the groups: one on the CPU to agree in, one for gradients."""
    waiting = timedelta(seconds=WAITING_SECONDS)
    inside = PrefixStore("groups", store)
    dist.init_process_group("gloo", store=inside, rank=rank, world_size=count, timeout=waiting)
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        known = Peers(rank, count).collected(str(torch.cuda.get_device_properties(device).uuid))
        # NCCL refuses two processes on one GPU.
        backend = "nccl" if len(set(known)) == count else "gloo"
    gradients = dist.new_group(backend=backend, timeout=waiting)
    return Peers(rank, count, gradients, device)


def _own_device(device: torch.device, environment: Mapping[str, str]) -> torch.device:
    """Return this process's GPU: of several that it sees the one of its number on the node."""
    if device.type != "cuda":
        return device
    seen, local = torch.cuda.device_count(), _number(environment, "LOCAL_RANK", 0)
    if 1 < seen <= local:
        raise UserError(
            f"is {local}, and this node has {seen} GPUs", key="LOCAL_RANK", hint="One process for each GPU"
        )
    return torch.device("cuda", local if seen > 1 else 0)


def _told(store: TCPStore, rank: int, count: int, error: BaseException) -> str | None:
    """Tell the others that this process failed; return what did, where it is only that another one has."""
    text = str(error)
    another = isinstance(error, RuntimeError) and any(word in text.lower() for word in _GONE)
    if not another:
        with suppress(RuntimeError):
            what = type(error).__name__
            store.compare_set(_FAILED, "", f"process {rank} of {count} failed: {what}: {text[:2000]}")
        return None
    with suppress(RuntimeError):
        if store.check([_FAILED]):
            return str(store.get(_FAILED).decode())
    return f"process {rank} of {count} lost the others: {next(iter(text.splitlines()), '')}"


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    """Read a number of the environment.

    Raises:
        UserError: it is none, or missing and there is no default.
    """
    text = environment.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise UserError(f"is {text!r}, not a number", key=name) from None
