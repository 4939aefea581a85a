"""What a process learns from its launcher, and how the processes of one sweep keep step."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import TCPStore

# What gloo and NCCL say when a process at the other end is gone.
LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "connection refused", "remote process")
ENDED = (137, 143)  # exit codes of a process that was ended by a signal
PATIENCE = timedelta(days=30)  # one process may train and evaluate for long while the others are done


def rank() -> int:
    """This process's number among all, 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def use_all_cores() -> None:
    """Gives this process its share of the cores; to be called before torch is imported.

    `accelerate launch` and `torchrun` set OMP_NUM_THREADS=1 where the user has not set it, which halves the speed of a
    two-core machine. Whether the user had set it shows in the launcher's own environment; where that cannot be read,
    nothing is changed.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
    if not launched or os.environ.get("OMP_NUM_THREADS") != "1":
        return
    try:
        launcher = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
        cores = len(os.sched_getaffinity(0))
    except (OSError, AttributeError):  # not Linux
        return
    if not any(entry.startswith(b"OMP_NUM_THREADS=") for entry in launcher):
        os.environ["OMP_NUM_THREADS"] = str(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def lost_process(error: Exception) -> str | None:
    """In words, where `error` says that another process of this launch is gone; else None."""
    if world_size() == 1 or not isinstance(error, RuntimeError):  # torch.distributed's errors are of this kind
        return None
    words = " ".join(str(error).split())
    found = next((word for word in LOST if word in words.lower()), None)
    return found or (type(error).__name__ if type(error).__name__ in ("DistBackendError", "DistNetworkError") else None)


class Peers:
    """The same sweep in every process of one launch: one port a job, and each other's exit codes.

    One process alone needs no partner and opens no connection.
    """

    def __init__(self) -> None:
        self.rank, self.size = rank(), world_size()
        self._store = self._connect() if self.size > 1 else None

    def _connect(self) -> TCPStore:
        from torch.distributed import TCPStore

        # torchrun and accelerate run a store of their own at this address; other launchers leave the port free.
        hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return TCPStore(address, port, is_master=not hosted and self.rank == 0, timeout=PATIENCE)

    def job_environment(self, job: int) -> dict[str, str]:
        """What a job's environment has beside this one's: a meeting point of its own for its process group."""
        if "MASTER_PORT" not in os.environ:
            return {}
        key = f"align-sweep/{job}/port"
        if self._store is None:
            port = free_port()
        else:
            if self.rank == 0:
                self._store.set(key, str(free_port()))
            port = int(self._store.get(key).decode())
        return {"MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "False"}

    def report(self, job: int, code: int, stopping: bool) -> None:
        """Tells the others how this process's part of the job ended, and whether it was asked to end the sweep."""
        if self._store is not None:
            self._store.set(f"align-sweep/{job}/exit/{self.rank}", f"{code} {int(stopping)}")

    def failed_elsewhere(self, job: int) -> bool:
        """Whether another process's part of the job has ended with an error so far."""
        if self._store is None:
            return False
        keys = [f"align-sweep/{job}/exit/{other}" for other in range(self.size) if other != self.rank]
        return any(self._store.check([key]) and not self._store.get(key).startswith(b"0 ") for key in keys)

    def agreed(self, job: int, code: int, stopping: bool) -> tuple[int, bool]:
        """(exit code, end the sweep) over all processes, once all have reported.

        An error's code comes before that of a process that was ended because of it.
        """
        if self._store is None:
            return code, stopping
        said = [self._store.get(f"align-sweep/{job}/exit/{other}").decode().split() for other in range(self.size)]
        codes = [int(other) for other, _ in said if other != "0"]
        return min(codes, key=lambda other: other in ENDED, default=0), any(stop == "1" for _, stop in said)

    def part(self) -> None:
        """Keeps rank 0, which may hold the store, until the others have read the last exit codes."""
        if self._store is not None:
            self._store.add("align-sweep/parted", 1)
            if self.rank == 0:
                while self._store.add("align-sweep/parted", 0) < self.size:
                    time.sleep(0.05)


def free_port() -> int:
    """A TCP port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
