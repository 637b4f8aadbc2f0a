"""One study as its page shows it: what runs, what the search believes and would try next, and the report's data. Files only."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finestep.errors import FinestepError, cause_words
from finestep.language.catalogue import translations
from finestep.report.page_data import page_json
from finestep.report.series import kept_indices, rounded
from finestep.report.view import ReportView, build_view
from finestep.result import Spent
from finestep.store.commands import read_steering
from finestep.store.study_files import StudyFiles, read_spec
from finestep.studies.progress import Progress
from finestep.studies.status import Tally, study_status, tally
from finestep.study_layout import DATABASE, READY, RESULT, RUNNING, STEERING
from finestep.trial import Trial
from finestep.watch.courses import Course

if TYPE_CHECKING:
    from finestep.watch.weighing import Weighed

SENT_OF_A_COURSE = 600
TOLD_LAST = 6


class LiveStudy:
    """A study that is looked at again and again; only what has changed is read anew.

    Attributes:
        version: grows when the page's data have changed.
    """

    def __init__(self, folder: Path):
        self.folder, self.spec = folder, read_spec(folder)
        self.id = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
        self.version = 0
        self.state: dict[str, Any] = {"state": "loading"}
        self._lock = threading.Lock()
        self._mark: object = None
        self._courses: dict[int, Course] = {}
        self._trials: list[Trial] = []
        self._tally: Tally | None = None
        self._weighed: Weighed | None = None
        self._weigher: threading.Thread | None = None
        self._is_stale = False
        self.trouble = ""

    def look(self) -> None:
        """Read what is new. Safe to call from several threads."""
        with self._lock:
            mark = self._marks()
            if mark != self._mark:
                self._mark = mark
                self._read_again()
            for trial in self._trials:
                if trial.state == "running":
                    course = self._courses.setdefault(trial.number, Course(self._files().trial_folder(trial.number)))
                    course.look()
            now = self._now()
            self.state = {**now, "zh": translations(_sentences(now))}

    def page(self) -> tuple[ReportView, str]:
        """The report as values and as JSON; before it is made, what the trials alone say."""
        if self._weighed is not None:
            return self._weighed.view, self._weighed.data
        if self._mark is None:
            self.look()
        view = build_view(
            title=self.spec.name,
            trials=self._trials,
            steps={},
            evaluations={},
            facts={},
            baseline=None,
            best=None,
            notes=(),
            spent=Spent(),
            live=True,
        )
        return view, page_json(view)

    def curve(self, number: int) -> dict[str, object] | None:
        """One run's curve, for a page that was sent without it; None when there is no such run."""
        from finestep.watch.weighing import curve_of

        return curve_of(self.folder, self.spec, number)

    def points(self, since: Mapping[int, int]) -> dict[int, list[list[float | None]]]:
        """New points of the running trials by number: [step, tokens, loss, smoothed], thinned where they are many.

        Args:
            since: how many points of each the page has.
        """
        found = {}
        for number, course in list(self._courses.items()):
            first = since.get(number, 0)
            rows = course.rows[first:]
            if len(rows) > SENT_OF_A_COURSE:
                kept = kept_indices([[row[2] for row in rows]], max_points=SENT_OF_A_COURSE)
                rows = [rows[index] for index in kept]
            if rows:
                found[number] = [[row[0], row[1], rounded(row[2], digits=4)] for row in rows]
        return found

    def counts(self) -> dict[int, int]:
        """How many points of each running trial are known."""
        return {number: len(course.rows) for number, course in list(self._courses.items())}

    # ---- inside

    def _files(self) -> StudyFiles:
        return StudyFiles(self.folder, self.spec)

    def _marks(self) -> object:
        """What changes when a trial begins or ends."""
        marks = []
        for name in (DATABASE, f"{DATABASE}-wal", RESULT, READY, STEERING, RUNNING):
            try:
                found = (self.folder / name).stat()
            except OSError:
                continue
            marks.append((name, found.st_mtime_ns, found.st_size))
        return tuple(marks)

    def _read_again(self) -> None:
        try:
            trials = self._files().trials()
        except FinestepError:
            trials = []
        is_new = [(trial.number, trial.state) for trial in self._trials] != [(one.number, one.state) for one in trials]
        self._trials = trials
        self._tally = tally(StudyFiles(self.folder, self.spec, known=trials))
        for number in list(self._courses):
            if all(trial.number != number or trial.state != "running" for trial in trials):
                self._courses[number].is_over = True
        if is_new or self._weighed is None:
            self._weigh_soon()

    def _weigh_soon(self) -> None:
        """Make the page anew in a thread of its own; what has changed meanwhile is seen after that."""
        self._is_stale = True
        if self._weigher is None or not self._weigher.is_alive():
            self._weigher = threading.Thread(target=self._weigh, daemon=True, name="weighing")
            self._weigher.start()

    def _weigh(self) -> None:
        from finestep.watch.weighing import weigh

        while self._is_stale:
            self._is_stale = False
            try:
                self._weighed = weigh(self.folder, self.spec)
            except FinestepError as error:
                self.trouble = str(error)
                return
            except Exception as error:  # the page goes on without its report, and says so
                self.trouble = f"the report of this study cannot be drawn: {cause_words(error)}"
                return
            self.version += 1

    def _now(self) -> dict[str, Any]:
        progress = self._progress()
        if self._tally is not None:
            self._tally = replace(self._tally, progress=progress)
        status, steering = study_status(self.folder, known=self._tally), read_steering(self.folder)
        running = [self._running(trial, progress) for trial in self._trials if trial.state == "running"]
        speeds = [one["tokens_per_second"] for one in running if one["tokens_per_second"]]
        memory = [one["memory_bytes"] for one in running if one["memory_bytes"]]
        return {
            "id": self.id,
            "name": self.spec.name,
            "folder": str(self.folder),
            "state": status.state,
            "settled": status.settled,
            "trials": status.trials,
            "spent": status.spent,
            "budget": status.budget,
            "left_s": status.seconds_left,
            "best": None if status.best is None else asdict(status.best),
            "running": running if status.working or status.paused else [],
            "tokens_per_second": round(sum(speeds), 1) if speeds else None,
            "memory_bytes": max(memory, default=None),
            "command": status.command,
            "next_command": status.next_command,
            "steering": [done.said for done in steering.done[-TOLD_LAST:]],
            "stopping": list(steering.stopping),
            "version": self.version,
            "trouble": self.trouble,
            **(self._weighed.belief if self._weighed else {}),
        }

    def _progress(self) -> Progress:
        """The trials with what those under way have made until now."""
        made = {number: course.made() for number, course in self._courses.items()}
        return Progress(self.spec, self._trials, self._files().known_ready(), made)

    def _running(self, trial: Trial, progress: Progress) -> dict[str, Any]:
        course, recipe = self._courses.get(trial.number), trial.recipe
        pace = course.pace() if course else None
        return {
            "trial": trial.number,
            "rate": recipe.learning_rate,
            "batch": recipe.effective_batch_size,
            "share": trial.fidelity,
            "stage": trial.stage,
            "why": trial.why,
            "by_user": trial.asked_by == "user",
            "step": course.step if course else 0,
            "num_steps": progress.planned_steps(trial),
            "loss": rounded(course.loss, digits=5) if course and course.loss is not None else None,
            "eval_loss": rounded(course.eval_loss, digits=5) if course and course.eval_loss is not None else None,
            "left_s": progress.trial_left_s(trial),
            "tokens_per_second": round(pace["tokens_per_second"], 1) if pace else None,
            "memory_bytes": course.memory_bytes if course else None,
            "notes": course.notes[-3:] if course else [],
        }


def _sentences(now: Mapping[str, Any]) -> list[str]:
    """What the page says in the study's words, so that it can say it in Chinese too."""
    said = [now.get("sentence"), now["trouble"], *now["steering"], *(now.get("next") or {}).values()]
    for run in now["running"]:
        said += [run["why"], run["stage"], *run["notes"]]
    return [text for text in said if isinstance(text, str) and text]


def as_text(state: Mapping[str, object]) -> str:
    """JSON without NaN."""
    return json.dumps(state, allow_nan=False, separators=(",", ":"), default=str)
