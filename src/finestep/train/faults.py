"""What an exception inside a trial means: is the process fit to go on with other trials, or is its device lost."""

from __future__ import annotations

import sys
import traceback

import torch

from finestep.errors import cause_words

LOST_DEVICE_WORDS = ("cuda error", "hip error", "device-side assert", "cublas_status", "cudnn_status", "nccl error")


def is_device_lost(error: BaseException) -> bool:
    """True for errors after which every further call to the device fails: only a new process helps."""
    accelerator = getattr(torch, "AcceleratorError", None)
    if accelerator is not None and isinstance(error, accelerator):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in LOST_DEVICE_WORDS)


def logged_cause(error: BaseException) -> str:
    """The cause in one line; the whole traceback goes to standard error, which is the worker's log."""
    traceback.print_exception(error, file=sys.stderr)
    sys.stderr.flush()
    return cause_words(error)
