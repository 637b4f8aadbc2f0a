"""A real study with frequent checkpoints, as a process that tests can kill: FOLDER MODEL DATA BUDGET."""

from __future__ import annotations

import sys
from pathlib import Path

from finestep.protocol import TrialOptions
from finestep.recipe import Recipe
from finestep.studies.run import StudyRun
from finestep.study import Budget, DataSpec, ModelSpec, StudySpec
from tests.flows.targets import say_number


def main() -> None:
    folder, model, data, budget = sys.argv[1:5]
    say_number(Path(folder))
    recipe = Recipe(effective_batch_size=16, num_epochs=16, max_length=96, lora={"rank": 2})
    spec = StudySpec(
        name="kill",
        model=ModelSpec(path=model, device="cpu"),
        data=DataSpec(path=data, max_length=96),
        recipe=recipe,
        num_threads=1,
    )
    study = StudyRun(
        spec,
        Path(folder),
        Budget(full_runs=float(budget)),
        command="test",
        options=TrialOptions(checkpoint_every_s=0.4),
        check_saved=False,
    )
    for event in study.events(lambda: False):
        if event.kind == "trial_finished":
            print(event.trial.number, event.trial.state, flush=True)


if __name__ == "__main__":
    main()
