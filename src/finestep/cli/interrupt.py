"""Ctrl-C and SIGTERM: the first asks for a checkpoint and a clean end, the second ends at once."""

from __future__ import annotations

import os
import signal
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import FrameType
from typing import Protocol, Self


class Work(Protocol):
    """What can be asked to stop."""

    def stop(self) -> None: ...
    def kill(self) -> None: ...


class Stopped(BaseException):
    """A signal ended a command that has nothing to write down. No library catches it as it would a KeyboardInterrupt."""

    def __init__(self, number: int):
        self.number = number


class Signals(ABC):
    """A context that handles Ctrl-C and SIGTERM; only the main thread can, so that in others it does nothing."""

    def __init__(self) -> None:
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @abstractmethod
    def _handle(self, number: int, frame: FrameType | None) -> None:
        """A signal has come."""


class Stoppable(Signals):
    """A context in which the first signal ends the command, and the second ends the process.

    Attributes:
        number: of the signal; None while there was none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.number: int | None = None

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            os._exit(128 + self.number)
        self.number = number
        raise Stopped(number)


class Interrupt(Signals):
    """A context that turns signals into a stop flag.

    Attributes:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM, None while nothing happened.
    """

    def __init__(self, work: Work, *, say: Callable[[str], None]):
        self._work, self._say = work, say
        super().__init__()
        self.exit_code: int | None = None

    def requested(self) -> bool:
        """True once a stop was asked for."""
        return self.exit_code is not None

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.requested():
            self._work.kill()
            os._exit(self.exit_code or 1)
        self.exit_code = 128 + number
        self._work.stop()
        self._say("stopping: writing a checkpoint (once more to stop at once); the same command goes on from here")
