"""Is an error one of the disk? Files are written by several libraries, and each says it in its own way."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# torch's writer of zip files, and safetensors, which raise no OSError.
WORDS = ("no space left on device", "disk quota exceeded", "file too large")
WRITER = ("pytorchstreamwriter failed", "unexpected pos", "file write failed")


def full_disk(error: BaseException) -> str | None:
    """In words, where `error` says that a disk or quota is full or a file too large for it; else None."""
    if isinstance(error, OSError) and error.errno in FULL:
        return os.strerror(error.errno)
    text, said_by = str(error).lower(), type(error).__name__
    if said_by not in ("RuntimeError", "SafetensorError") or not any(word in text for word in WORDS + WRITER):
        return None
    return next((word.capitalize() for word in WORDS if word in text), os.strerror(errno.ENOSPC))


def size_of(folder: Path) -> int:
    """Bytes of all files below `folder`; 0 where there is none."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def free(folder: Path) -> int:
    """Bytes that are free on the disk of `folder`."""
    return shutil.disk_usage(folder).free
