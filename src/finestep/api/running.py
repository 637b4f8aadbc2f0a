"""Running a study from Python: to its end in this thread, or beside it with a handle that waits and stops."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence

from finestep.api.notebook import NotebookScreen, in_notebook
from finestep.api.study import Study, open_study
from finestep.cli.interrupt import Interrupt
from finestep.cli.screen import Screen
from finestep.cli.terminal import open_console
from finestep.studies.event import TuneEvent
from finestep.studies.run import StudyRun


class RunningStudy:
    """A study that runs in a thread of its own.

    >>> running = tune("shipped", rows, background=True)  # doctest: +SKIP
    >>> running.wait().best.eval_loss  # doctest: +SKIP
    """

    def __init__(self, study: StudyRun, play: Callable[[Callable[[], bool]], None]):
        self._study, self._play = study, play
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="finestep study", daemon=False)
        self._thread.start()

    @property
    def running(self) -> bool:
        """False once it has ended."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Ask for a checkpoint and a clean end; called again with the same arguments, `tune` goes on from there."""
        self._stopping.set()
        self._study.executor.stop()

    def wait(self, timeout_s: float | None = None) -> Study:
        """The study at its end.

        Raises:
            FinestepError: what ended it.
            TimeoutError: it still runs after `timeout_s`.
        """
        self._thread.join(timeout_s)
        if self.running:
            raise TimeoutError(f"the study in {self._study.folder} still runs after {timeout_s:g} s")
        if self._error is not None:
            raise self._error
        return self.study()

    def study(self) -> Study:
        """The study as its files say now."""
        return open_study(self._study.folder)

    def _run(self) -> None:
        try:
            self._play(self._stopping.is_set)
        except BaseException as error:  # it is raised again where somebody waits
            self._error = error


def run(
    study: StudyRun,
    *,
    notes: Sequence[str] = (),
    on_event: Callable[[TuneEvent], None] | None,
    progress: bool,
    background: bool,
) -> Study | RunningStudy:
    """Run to the end, or start it and return.

    Ctrl-C writes a checkpoint and the results so far, and then raises KeyboardInterrupt.
    """

    def play(should_stop: Callable[[], bool]) -> None:
        _play(study, notes, on_event=on_event, progress=progress, should_stop=should_stop)

    if background:
        return RunningStudy(study, play)
    with Interrupt(study.executor, say=print) as interrupt:
        play(interrupt.requested)
    if interrupt.requested():
        raise KeyboardInterrupt
    return open_study(study.folder)


def _play(
    study: StudyRun,
    notes: Sequence[str],
    *,
    on_event: Callable[[TuneEvent], None] | None,
    progress: bool,
    should_stop: Callable[[], bool],
) -> None:
    with _screen(study, progress=progress) as screen:
        for note in notes:
            screen.say(note)
        with contextlib.closing(study.events(should_stop)) as events:
            for event in events:
                screen.show(event)
                if on_event is not None:
                    on_event(event)


def _screen(study: StudyRun, *, progress: bool) -> Screen | NotebookScreen:
    """A line an event, or in a notebook one output that follows the study."""
    if progress and in_notebook():
        return NotebookScreen(study.spec, study.budget)
    return Screen(open_console(quiet=not progress), study.spec, study.budget)
