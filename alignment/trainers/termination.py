"""SIGTERM, seen by any rank or by the launcher, becomes one decision of all ranks at the end of a step."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

import torch
from accelerate.utils import reduce

from alignment.errors import Interrupted


class Termination:
    """Whether this process was asked to stop. One of them lives as long as the process."""

    def __init__(self) -> None:
        self.asked = False
        # `accelerate launch` with one process does not pass SIGTERM on to its child: it dies, and the child is adopted.
        self.launcher = os.getppid() if "ACCELERATE_MIXED_PRECISION" in os.environ else None

    def install(self) -> None:
        """Catch SIGTERM from now on (main thread only, as Python wants it)."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def requested(self) -> bool:
        """True once this process got SIGTERM, or its launcher is gone."""
        return self.asked or (self.launcher is not None and os.getppid() != self.launcher)

    def raise_if_agreed(self, processes: Any) -> None:
        """Raise Interrupted on every rank if any rank was asked to stop. All ranks must call it, as they do `agree`."""
        if agree(processes, self.requested()):
            raise Interrupted


def agree(processes: Any, flag: bool) -> bool:
    """The flag's logical or over all ranks. All ranks must call it, with their Accelerator or PartialState."""
    if processes.num_processes == 1:
        return flag
    total: Any = reduce(torch.tensor(float(flag), device=processes.device), "sum")
    return bool(total > 0)


TERMINATION = Termination()
