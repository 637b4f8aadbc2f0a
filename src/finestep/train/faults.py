"""What an exception inside a trial means: is the process fit to go on with other trials, or is its device lost."""

from __future__ import annotations

import contextlib
import sys
import traceback
from pathlib import Path

import torch

from finestep.disk import fault_of
from finestep.errors import cause_words
from finestep.train.devices import GroupLost

LOST_DEVICE_WORDS = ("cuda error", "hip error", "device-side assert", "cublas_status", "cudnn_status", "nccl error")


def is_device_lost(error: BaseException) -> bool:
    """True for errors after which every further call to the device fails: only a new process helps."""
    if isinstance(error, GroupLost):
        return True
    accelerator = getattr(torch, "AcceleratorError", None)
    if accelerator is not None and isinstance(error, accelerator):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in LOST_DEVICE_WORDS)


def logged_cause(error: BaseException) -> str:
    """The cause in one line; the whole traceback goes to standard error, which is the worker's log."""
    with contextlib.suppress(OSError):  # the log may be on the disk that is full
        traceback.print_exception(error, file=sys.stderr)
        sys.stderr.flush()
    return cause_words(error)


def raise_machine_fault(error: BaseException, folder: Path) -> None:
    """Raise the machine's fault behind an exception, if there is one: it ends the session, and no trial fails of it."""
    if (fault := fault_of(error, place=folder)) is not None:
        logged_cause(error)
        raise fault from error
