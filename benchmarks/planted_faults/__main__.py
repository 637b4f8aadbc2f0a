"""Is a planted fault named rightly, and are clean runs left alone?

    python -m benchmarks.planted_faults --records FOLDER                       train what is missing (10 seeds a fault), then judge
    python -m benchmarks.planted_faults --records FOLDER --only rate-x30,clean-good --seeds 3
    python -m benchmarks.planted_faults --records FOLDER --judge               judge the records at hand, train nothing

Runs are short (83 to 450 steps of the shipped model) and kept as records; a run that was stopped half way begins anew.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.planted_faults.plants import CLEAN, FAULTS, POISONED_STEP, Plant
from benchmarks.planted_faults.runs import Record, as_columns, load, train_missing
from finestep.diagnosis.run_verdict import diagnose_run
from finestep.diagnosis.training_log import RunContext, RunSettings
from finestep.diagnosis.verdict import Diagnosis

VOCABULARY = 2560


def judged(record: Record) -> Diagnosis:
    """The verdict on one planted run, from its records alone."""
    return diagnose_run(
        record.step_records(),
        record.eval_records(),
        chance_loss=math.log(VOCABULARY),
        num_epochs=record.recipe["num_epochs"],
        said=record.said(),
        context=RunContext(
            method=record.recipe["method"],
            vocabulary_size=VOCABULARY,
            settings=RunSettings(max_steps=record.num_steps, max_grad_norm=record.recipe["optimizer"]["max_grad_norm"]),
        ),
        name=f"{record.plant}:{record.seed}",
    )


def is_named(plant: Plant, diagnosis: Diagnosis) -> bool:
    """True when the verdict is one of the right codes. Two codes never are a verdict and only have to be said: a warmup that
    is too short, and a bad batch, which must be named with its step."""
    if plant.name == "no-warmup" and any(finding.code == "warmup_too_short" for finding in diagnosis.findings):
        return True
    if plant.name != "poisoned-batch":
        return diagnosis.verdict.code in plant.codes
    hits = [finding for finding in diagnosis.findings if finding.code in plant.codes]
    steps = [finding.evidence.get("step", finding.evidence.get("first_step")) for finding in hits]
    return any(isinstance(step, int | float) and abs(step - POISONED_STEP) <= 1 for step in steps)


def is_false_alarm(diagnosis: Diagnosis) -> bool:
    """A finding of severity warning or more."""
    return any(finding.severity in ("warning", "error") for finding in diagnosis.findings)


def report(records: Sequence[Record]) -> None:
    """One line a fault: how many are named, and what else was said."""
    named = total = alarms = clean = 0
    for plant in [*FAULTS, *CLEAN]:
        verdicts = [judged(record) for record in records if record.plant == plant.name]
        if not verdicts:
            continue
        codes = Counter(diagnosis.verdict.code for diagnosis in verdicts)
        if plant in CLEAN:
            wrong = [diagnosis for diagnosis in verdicts if is_false_alarm(diagnosis)]
            clean, alarms = clean + len(verdicts), alarms + len(wrong)
            print(f"{plant.name:20} {len(wrong)} of {len(verdicts)} with a false alarm   {dict(codes)}")
        else:
            hits = sum(is_named(plant, diagnosis) for diagnosis in verdicts)
            named, total = named + hits, total + len(verdicts)
            print(f"{plant.name:20} {hits} of {len(verdicts)} named             {dict(codes)}")
    if total:
        print(f"planted faults: {named} of {total} named ({named / total:.1%})")
    if clean:
        print(f"clean runs: {alarms} of {clean} with a false alarm ({alarms / clean:.1%})")


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0, help="seeds that no rule has seen begin at 40")
    parser.add_argument("--judge", action="store_true")
    parser.add_argument("--fixture", type=Path, help="write the first seed of each plant to this file, for the tests")
    options = parser.parse_args()
    chosen = set(options.only.split(",")) - {""}
    for plant in [] if options.judge else [*FAULTS, *CLEAN]:
        if not chosen or plant.name in chosen:
            began = time.monotonic()
            count = train_missing(plant, range(options.first_seed, options.first_seed + options.seeds), options.records)
            print(f"{plant.name}: {count} runs trained in {time.monotonic() - began:.0f} s", flush=True)
    records = load(options.records)
    if options.fixture:
        first = {record.plant: record for record in sorted(records, key=lambda each: -each.seed)}
        lines = (json.dumps(as_columns(record), separators=(",", ":")) for record in first.values())
        options.fixture.write_text("\n".join(lines) + "\n", encoding="utf-8")
    report(records)


if __name__ == "__main__":
    main()
