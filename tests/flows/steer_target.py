"""A study on the replay twin that plays slowly, as a process that tests can steer and kill: FOLDER BUDGET SECONDS_A_TRIAL."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from finestep.executors.replay import ReplayExecutor
from finestep.search.sweep import Sweep
from finestep.studies.tuning import Tuning
from finestep.study import Budget

from .studies import CARD, basin, open_store
from .targets import say_number


def main() -> None:
    folder, budget, seconds = sys.argv[1:4]
    say_number(Path(folder))

    def slow(recipe, fidelity):
        time.sleep(float(seconds))
        return basin(recipe, fidelity)

    store = open_store(Path(folder))
    executor = ReplayExecutor(slow, card=CARD, num_train_rows=4000)
    tuning = Tuning(store, executor, lambda card: Sweep("lora"), Budget(full_runs=float(budget)))
    for _ in tuning.run():
        pass
    store.close()


if __name__ == "__main__":
    main()
