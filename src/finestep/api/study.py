"""A study from its folder: the answer, the trials, the curves, the model. It reads files, takes no lock and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from finestep.answer import Answer
from finestep.errors import BadInput, MissingDependency
from finestep.flows.own_trial import finding_words
from finestep.recipe import Recipe
from finestep.result import StudyResult, read_result
from finestep.saved_model import read_saved
from finestep.store.recipe_file import read_recipe
from finestep.store.study_files import read_records, read_spec
from finestep.study import StudySpec
from finestep.study_layout import MODEL, RECIPE, REPORT, RESULT, STEPS, trial_folder
from finestep.trial import StepRecord

if TYPE_CHECKING:
    from pandas import DataFrame

    from finestep.saved.load import Loaded


@dataclass(frozen=True)
class Best:
    """The chosen trial.

    Attributes:
        trial: its number.
        recipe: every hyperparameter; `finestep.write_recipe` keeps it as a file.
        eval_loss: validation loss in nats a token (for labels: a row).
        metrics: further figures by name, e.g. `accuracy`.
    """

    trial: int
    recipe: Recipe
    eval_loss: float
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """What a study has found out so far.

    >>> from finestep import open_study
    >>> study = open_study("finestep-runs/mine")  # doctest: +SKIP
    >>> study.best.recipe.learning_rate, study.settled  # doctest: +SKIP
    """

    folder: Path
    spec: StudySpec
    result: StudyResult = field(default_factory=StudyResult)
    """Everything in figures, as in `result.json`; empty before the first results."""

    @property
    def best(self) -> Best | None:
        """The chosen trial; None while no full run has finished."""
        found = self.result.best
        if found is None or found.eval_loss is None:
            return None
        return Best(found.trial, read_recipe(self.folder / RECIPE), found.eval_loss, dict(found.metrics))

    @property
    def answer(self) -> Answer | None:
        """What the search believes: intervals by batch size and, if settled, the expected regret in per cent."""
        return self.result.answer

    @property
    def settled(self) -> bool:
        """The best full run stands between worse ones; if not, `next_command` goes on."""
        return bool(self.result.settled)

    @property
    def next_command(self) -> str | None:
        """The command that goes on with a study that is not settled."""
        return self.result.next_command

    @property
    def report(self) -> Path:
        """The page of the study."""
        return self.folder / REPORT

    @property
    def trials(self) -> DataFrame:
        """All trials as a DataFrame, one a row; needs pandas."""
        rows = [{**row.model_dump(exclude={"metrics", "tuned"}), **row.metrics} for row in self.result.trials]
        return _frame(rows)

    def curve(self, trial: int | None = None) -> DataFrame:
        """Steps of a trial (None: the chosen one) as a DataFrame: step, loss, learning_rate, grad_norm and more; needs pandas."""
        number = trial if trial is not None else self.best.trial if self.best else None
        folder = trial_folder(self.folder, number or 0)
        if number is None or not folder.is_dir():
            known = ", ".join(str(row.trial) for row in self.result.trials)
            raise BadInput("there is no such trial", value=number, place=str(self.folder), next_step=f"known: {known}")
        return _frame([record.model_dump() for record in read_records(folder / STEPS, StepRecord)])

    def load_model(self) -> Loaded:
        """The tuned model in evaluation mode, on the CPU; it needs torch, transformers and, for adapters, PEFT.

        Raises:
            BadInput: the study has saved no model yet.
        """
        from finestep.saved.load import load_saved

        folder = self.folder / MODEL
        saved = read_saved(folder)
        if saved is None:
            raise BadInput("the study has no saved model", value=str(folder), next_step="let a full run finish first")
        return load_saved(folder, saved)

    def _repr_html_(self) -> str:
        from finestep.api.notebook import card_html

        return card_html([("study", str(self.folder)), *self._figures()], self.result, self.folder)

    def __str__(self) -> str:
        return "\n".join(f"{name:14}{text}" for name, text in [("study", str(self.folder)), *self._figures()])

    def _figures(self) -> list[tuple[str, str]]:
        best, answer = self.best, self.answer
        if best is None:
            return [("best", "no full run has finished")]
        rows = [
            ("learning rate", f"{best.recipe.learning_rate:.2g}"),
            ("batch", f"{best.recipe.effective_batch_size}"),
            ("loss", self._loss(best)),
            *((name, f"{value:.4g}") for name, value in best.metrics.items()),
        ]
        if answer is not None:
            rows.append(("answer", answer.sentence))
        if said := finding_words(self.result.finding):
            rows.append(("seen in the run", said))
        rows += [("data", note) for note in self.result.data.notes]
        if self.result.saved is not None:
            rows.append(("checked", self.result.saved.sentence))
        if not self.settled and self.next_command:
            rows.append(("go on with", self.next_command))
        return [*rows, ("report", str(self.report))]

    def _loss(self, best: Best) -> str:
        """The loss, and what it was before training."""
        row = next((row for row in self.result.trials if row.trial == best.trial), None)
        before = row.base_eval_loss if row is not None else None
        return f"{best.eval_loss:.4g}" + (f" (before training {before:.4g})" if before is not None else "")


def open_study(folder: str | Path) -> Study:
    """A study on disk, also one that is running: as its files say now.

    Raises:
        BadInput: the folder holds no study.
    """
    path = Path(folder).expanduser()
    spec = read_spec(path)
    result = read_result(path)
    if result is None and (path / RESULT).exists():
        raise BadInput(
            "result.json cannot be read", place=str(path), next_step=f"finestep report {path} writes it again"
        )
    return Study(path, spec, result or StudyResult())


def _frame(rows: list[dict[str, object]]) -> DataFrame:
    try:
        import pandas
    except ImportError:
        raise MissingDependency("pandas", needed_for="tables of a study", extra="notebook") from None
    return pandas.DataFrame(rows)
