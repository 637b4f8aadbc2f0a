"""What finestep says when it cannot go on: the law, the value, the place and the next step.

It never wraps an error of a library whose message is already good, and never hides a traceback of our own bugs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


MOST_CAUSE_CHARACTERS = 300


class FinestepError(Exception):
    """An error that a user can act on; the command line prints its text alone and exits with `exit_code`."""

    exit_code = 2
    place: str | None = None
    next_step: str | None = None
    named: str | None = None
    """The kind as another process has named it."""

    @property
    def kind(self) -> str:
        """A word for machines, e.g. `BadInput`."""
        return self.named or type(self).__name__


class BadInput(FinestepError):
    """A value, file or option breaks a law.

    Args:
        law: what must hold, e.g. "`learning_rate` must be > 0".
        value: what was found instead.
        place: file and line, option name or field path.
        next_step: one thing to do about it.
    """

    def __init__(self, law: str, *, value: object = None, place: str | None = None, next_step: str | None = None):
        self.law, self.value, self.place, self.next_step = law, value, place, next_step
        super().__init__(_sentence(law, value, place, next_step))


class MissingDependency(FinestepError):
    """A part of finestep needs a package that is not installed."""

    def __init__(self, package: str, *, needed_for: str, extra: str):
        self.package, self.extra = package, extra
        self.next_step = f"run `pip install 'finestep[{extra}]'`"
        super().__init__(
            f"{needed_for} needs `{package}`, which is not installed; run `pip install 'finestep[{extra}]'`"
        )


class StudyChanged(FinestepError):
    """A study on disk was made under other conditions than those asked for now."""

    next_step = "give the old value, or another folder with --out"


class StudyBusy(FinestepError):
    """Another process is working on the same study."""

    exit_code = 3
    next_step = (
        "`finestep status FOLDER` shows what runs there; wait for it, stop it, or give another folder with --out"
    )


class StudyDamaged(FinestepError):
    """Files of a study are lost or damaged, and others of its files know better."""

    def __init__(self, what: str, *, place: str | None = None, next_step: str | None = None):
        self.place, self.next_step = place, next_step
        super().__init__(_sentence(what, None, place, next_step))


class EnvironmentFault(FinestepError):
    """The machine failed, not the trial: no space, a read-only disk, a process killed while it loads.

    It is never an outcome: the study pauses, and the same command goes on once the fault is fixed.
    """

    exit_code = 75

    def __init__(self, what: str, *, place: str | None = None, next_step: str | None = None):
        self.what, self.place, self.next_step = what, place, next_step
        super().__init__(_sentence(what, None, None, None) + (f": {place}" if place else "") + f"; {next_step}")


class NotWritable(EnvironmentFault):
    """A file cannot be written where it was asked for: a path that leads nowhere, or that this user may not write."""

    exit_code = 2


class WorkerLost(EnvironmentFault):
    """The worker was killed while it loaded model and data; it may be started again."""


class WorkerFailed(FinestepError):
    """The worker process could not be started, or died more often than it may."""

    exit_code = 1


def cause_words(error: BaseException) -> str:
    """The kind of an exception and the first line of what it says.

    >>> cause_words(ValueError("shapes differ\\nby a lot"))
    'ValueError: shapes differ'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = type(error).__name__
    return f"{kind}: {lines[0][:MOST_CAUSE_CHARACTERS]}" if lines else kind


def _sentence(law: str, value: object, place: str | None, next_step: str | None) -> str:
    text = law
    if value is not None:
        shown = repr(value)
        text += f"; got {shown if len(shown) <= 160 else shown[:157] + '...'}"
    if place:
        text += f" in {place}"
    if next_step:
        text += f"; {next_step}"
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A short hint, e.g. " (did you mean `warmup_steps`?)", or an empty string when nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean `{near[0]}`?)" if near else ""


def first_complaint(error: ValidationError) -> tuple[str, str, object]:
    """Dotted name of the first field that pydantic refuses (empty: of the whole), the law in its words, and the value."""
    first = error.errors()[0]
    name = ".".join(part for part in first["loc"] if isinstance(part, str))
    law = "there is no such field" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    return name, f"{law[0].lower()}{law[1:]}" if name else law, first["input"]
