"""How good and how fast `finestep diagnose` is: agreement with hand-made labels, false alarms, speed.

    python -m benchmarks.diagnose --labels FOLDER... [--sensitivity] [--differences design]
                                                                    agreement by part, comforted broken runs, confusions, calibration
    python -m benchmarks.diagnose --false-alarms                    clean and faulty simulated runs
    python -m benchmarks.diagnose --rows 1000000                    one long log in three formats
    python -m benchmarks.diagnose --monitor                         cost of the live monitor a step

A FOLDER holds `labels.csv` (columns file, repo, primary_label, second) and the files in `raw/`; `benchmarks.labelled_logs` says which of
them rules were made on and which are only counted.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from benchmarks.labelled_logs import (
    NOT_OLD,
    PARTS,
    calibration,
    counted,
    counts,
    every_label,
    judged,
    leave_one_repository_out,
)
from finestep.diagnosis.confidence import FEW_ROWS
from finestep.diagnosis.monitor import LiveMonitor
from finestep.diagnosis.simulated import Setting, simulated_log
from finestep.diagnosis.thresholds import DEFAULT, Thresholds
from finestep.diagnosis.training_log import TrainingLog
from finestep.diagnosis.verdict import diagnose_log
from finestep.readers.open_logs import read_logs
from finestep.trial import EvalRecord, StepRecord

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Moved = TypeVar("Moved", bound="DataclassInstance")
FAULTS = (
    "diverged", "collapsed", "too_low", "memorised", "overfitting", "spike", "overflow", "hidden_nan",
    "nothing_trained",
    "leak", "stopped_early", "data_changed", "shuffled_labels",
)  # fmt: skip


def naive_label(logs: list[TrainingLog]) -> str:
    """Fixed thresholds: NaN or zero is failure, a last evaluation 3 % above the lowest overfits, a rise has
    diverged."""
    if not logs or not (len(logs[0].train) or logs[0].evaluation):
        return "too_little_information"
    loss, evaluation = logs[0].train.loss, logs[0].evaluation
    if len(loss) and (not np.isfinite(loss).all() or (loss == 0).any()):
        return "numerical_failure"
    if evaluation is not None and evaluation.loss[-1] > 1.03 * evaluation.loss.min():
        return "overfitting"
    if len(loss) < 3:
        return "too_little_information"
    if loss[-1] > loss[0]:
        return "lr_too_high_diverged"
    tail = loss[-max(3, len(loss) // 5) :]
    return "undertrained" if np.polyfit(np.arange(len(tail)), tail, 1)[0] < 0 else "healthy"


def report_agreement(folders: Sequence[Path], *, part: str | None = None) -> None:
    """What is agreed on in each part, broken runs that were comforted, confusions; and the differences of one part by name.

    A check half is never listed by name: no rule may be made for one of its logs.
    """
    logs = [log for folder in folders for log in judged(folder)]
    print(f"{'part':12}{'logs':>5}{'first label':>16}{'first or second':>18}{'comforted':>16}")
    for name in (*PARTS, "new", "all"):
        chosen = [log for log in logs if name in (log.part, "all") or (name == "new" and log.part in NOT_OLD[:2])]
        if chosen:
            _print_counts(name, counts(chosen))
    naive = sum(naive_label(read_logs(folder / "raw" / row["file"])) == row["primary_label"]
                for folder in folders for row in every_label(folder))  # fmt: skip
    print(f"fixed thresholds agree with the first label in {naive} of {len(logs)}")
    print("confusions, all parts but the oldest: ours -> first label, logs, of them allowed by another label")
    confused = Counter((log.verdict, log.label) for log in logs if log.part in NOT_OLD and not log.agrees)
    allowed = Counter((log.verdict, log.label) for log in logs if log.part in NOT_OLD and log.is_allowed)
    for (ours, label), count in confused.most_common():
        print(f"  {ours:24} -> {label:24}{count:4}{allowed[ours, label]:4}")
    if part is not None and "check" not in part:
        for log in logs:
            if log.part == part and not log.agrees:
                print(
                    f"  {log.file:10} {log.label} / {log.second or '-'} -> {log.verdict} ({log.code}, {log.stated:.0%})"
                )


def report_calibration(folders: Sequence[Path]) -> None:
    """The table of confidence from all logs but the oldest, and how it fares when each repository is judged by the others."""
    logs = [log for folder in folders for log in judged(folder, parts=NOT_OLD)]
    print(f"share of first labels: {sum(log.agrees for log in logs) / len(logs):.3f} of {len(logs)} logs")
    print(f"AGREEMENT = {counted(logs)}")
    few = [log for log in logs if log.num_rows < FEW_ROWS]
    if few:
        print(f"below {FEW_ROWS} rows: {sum(log.agrees for log in few) / len(few):.2f} of {len(few)}")
    apart = leave_one_repository_out(logs)
    for name in ("all", "check halves"):
        print(f"leave one repository out, {name}: stated, mean stated, logs, first label, votes, any label")
        for row in calibration([log for log in apart if name == "all" or "check" in log.part]):
            print(f"  {row.band:12}{row.stated:7.0%}{row.logs:6}{row.first:9.0%}{row.votes:9.0%}{row.either:9.0%}")


def _print_counts(name: str, of: dict[str, float]) -> None:
    first, either = (f"{of[key]:.0f} ({of[key] / max(of['logs'], 1):.0%})" for key in ("first", "either"))
    comforted = f"{of['comforted']:.0f} of {of['broken']:.0f}"
    print(f"{name:12}{of['logs']:5.0f}{first:>16}{either:>18}{comforted:>16}")


def report_sensitivity(folder: Path) -> None:
    """Agreement when one threshold moves by 20 %, and when all move at random within 20 %."""
    total = len(every_label(folder))
    lowest: list[tuple[int, str]] = []
    for name, factor in itertools.product(_names(DEFAULT), (0.8, 1.2)):
        changed = _moved(DEFAULT, {name: factor})
        lowest.append((_agreed(folder, changed), f"{name} x {factor}"))
    for count, name in sorted(lowest)[:8]:
        print(f"  {name:36} {count} of {total}")
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(20):
        factors = {name: math.exp(rng.uniform(-0.2, 0.2)) for name in _names(DEFAULT)}
        counts.append(_agreed(folder, _moved(DEFAULT, factors)))
    spread = f"lowest {min(counts)}, median {np.median(counts):.0f}, highest {max(counts)} of {total}"
    print(f"all at random within 20 %, 20 draws: {spread}")


def _names(limits: DataclassInstance, prefix: str = "") -> Iterator[str]:
    """Every threshold by its part and name, e.g. `lost.ratio`."""
    for field in fields(limits):
        value, name = getattr(limits, field.name), prefix + field.name
        yield from _names(value, f"{name}.") if is_dataclass(value) and not isinstance(value, type) else (name,)


def _moved(limits: Moved, factors: Mapping[str, float], prefix: str = "") -> Moved:
    """The thresholds, those that are named times a factor; a number of rows stays a whole one."""
    changes = {}
    for field in fields(limits):
        value, name = getattr(limits, field.name), prefix + field.name
        inner = (
            _moved(value, factors, f"{name}.")
            if is_dataclass(value) and not isinstance(value, type)
            else type(value)(value * factors.get(name, 1))
        )
        changes[field.name] = inner
    return replace(limits, **changes)


def _agreed(folder: Path, limits: Thresholds) -> int:
    return sum(log.agrees for log in judged(folder, limits=limits))


def report_false_alarms() -> None:
    """Share of clean simulated runs with a finding of severity warning or more, and the codes of faulty ones."""
    alarms, total, codes = Counter(), Counter(), Counter()
    shapes = itertools.product((12, 40, 100, 200, 1000), (0, 4, 10, 40), ("gaussian", "student", "correlated"),
                               (0.01, 0.05, 0.15, 0.3), ((2.2, 1.0), (1.3, 1.05), (5.0, 3.2), (0.69, 0.2)), (1.0,
                               3.0))  # fmt: skip
    for index, (rows, evals, noise, sd, (start, floor), epochs) in enumerate(shapes):
        setting = Setting(
            num_rows=rows,
            num_evaluations=min(evals, rows),
            noise=noise,
            noise_sd=sd,
            start=start,
            floor=floor,
            epochs=epochs,
        )
        for seed in range(2):
            found = [f for f in diagnose_log(simulated_log("clean", seed=7919 * index + seed, setting=setting)).findings
                     if f.severity in ("warning", "error")]  # fmt: skip
            total[rows] += 1
            alarms[rows] += bool(found)
            codes.update(f.code for f in found)
    for rows in total:
        print(f"clean whole logs of {rows} rows: {alarms[rows]} of {total[rows]} with a false alarm")
    print(f"  codes: {dict(codes)}")
    for fault in FAULTS:
        print(f"planted {fault}: {_codes_of(fault).most_common(4)}")
    _report_live_false_alarms()


def _codes_of(fault: str) -> Counter:
    codes: Counter = Counter()
    for rows, evals, noise, sd in itertools.product(
        (40, 100, 300, 1000), (0, 8), ("gaussian", "student"), (0.02, 0.08)
    ):
        epochs = 10.0 if fault in ("memorised", "too_low") else 2.0
        setting = Setting(num_rows=rows, num_evaluations=evals, noise=noise, noise_sd=sd, epochs=epochs)
        codes.update(diagnose_log(simulated_log(fault, seed=seed, setting=setting)).verdict.code for seed in range(3))
    return codes


def _report_live_false_alarms() -> None:
    alarms, total, notices = 0, 0, Counter()
    shapes = itertools.product(
        ("gaussian", "student", "correlated"), (0.02, 0.08, 0.2, 0.4), (100, 400, 2000), ((2.2, 1.0), (1.3, 1.05))
    )
    for noise, sd, rows, (start, floor) in shapes:
        setting = Setting(
            num_rows=rows, rows_apart=1, noise=noise, noise_sd=sd, start=start, floor=floor, num_evaluations=6
        )
        for seed in range(10):
            findings = watched(simulated_log("clean", seed=seed, setting=setting), 1.1 * start)
            total += 1
            alarms += any(f.severity in ("warning", "error") for f in findings)
            notices.update(f.code for f in findings)
    print(f"live monitor on clean runs: {alarms} of {total} with a false alarm; all findings {dict(notices)}")


def step_records(log: TrainingLog) -> list[StepRecord]:
    """Records as the training loop writes them."""
    train = log.train
    return [
        StepRecord(step=int(step), loss=float(loss), learning_rate=float(rate), grad_norm=float(norm), clipped=bool(norm > 1),
                   num_tokens=1000, num_loss_tokens=500, elapsed_s=0.0)
        for step, loss, rate, norm in zip(train.step, train.loss, train.learning_rate, train.grad_norm, strict=True)
    ]  # fmt: skip


def watched(log: TrainingLog, base_eval_loss: float):
    """Everything that the live monitor says during a run."""
    monitor = LiveMonitor(chance_loss=math.log(32000), planned_steps=len(log.train), base_eval_loss=base_eval_loss)
    evals = {int(s): float(v) for series in log.evaluations for s, v in zip(series.step, series.loss, strict=True)}
    findings = []
    for record in step_records(log):
        findings += monitor.step(record)
        if record.step in evals:
            findings += monitor.evaluation(EvalRecord(step=record.step, num_tokens=1, eval_loss=evals[record.step]))
    return findings


def report_monitor() -> None:
    """Microseconds a step."""
    records = step_records(simulated_log("clean", setting=Setting(num_rows=50_000, rows_apart=1)))
    monitor = LiveMonitor(chance_loss=10.0)
    start = time.perf_counter()
    for record in records:
        monitor.step(record)
    print(f"live monitor: {1e6 * (time.perf_counter() - start) / len(records):.1f} microseconds a step")


def report_speed(num_rows: int) -> None:
    """Seconds to read and judge one long log as JSON lines, CSV and a trainer state."""
    log = simulated_log("clean", setting=Setting(num_rows=num_rows, rows_apart=1, num_evaluations=100))
    train = log.train
    columns = (train.step, train.loss, train.learning_rate, train.grad_norm, train.epoch)
    names = ("step", "loss", "learning_rate", "grad_norm", "epoch")
    rows = [
        dict(zip(names, (int(row[0]), *(float(x) for x in row[1:])), strict=True)) for row in zip(*columns, strict=True)
    ]
    with tempfile.TemporaryDirectory() as place:
        lines, table, state, printed = (
            Path(place) / name for name in ("log.jsonl", "log.csv", "trainer_state.json", "out.log")
        )
        lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        state.write_text(json.dumps({"log_history": rows, "max_steps": num_rows}, indent=2))
        printed.write_text("".join(f"{ {k: v for k, v in row.items() if k != 'step'} }\n" for row in rows))
        del rows, log, train, columns
        for path in (lines, table, state, printed):
            # A process of its own for each file, so that memory is that of one diagnosis.
            # `ru_maxrss` would count the parent before the exec; the kernel's high-water mark does not.
            code = (
                "import re, sys, time\nfrom pathlib import Path\nfrom finestep.flows.diagnose import diagnose_file\n"
                "start = time.perf_counter()\nlabel = diagnose_file(Path(sys.argv[1])).label\n"
                "peak = re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1]\n"
                "print(f'{time.perf_counter() - start:.1f} s, {time.process_time():.1f} s of processor, {label}, '\n"
                "f'peak {int(peak) / 1024:.0f} MB')"
            )
            told = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
            print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB, {told.stdout.strip()}")


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, nargs="+")
    parser.add_argument(
        "--differences", choices=("old", "design", "more-design"), help="list where verdict and label differ"
    )
    parser.add_argument("--calibrate", action="store_true", help="print the table of confidence")
    parser.add_argument("--sensitivity", action="store_true")
    parser.add_argument("--false-alarms", action="store_true")
    parser.add_argument("--monitor", action="store_true")
    parser.add_argument("--rows", type=int)
    options = parser.parse_args()
    if options.labels:
        report_agreement(options.labels, part=options.differences)
        if options.sensitivity:
            report_sensitivity(options.labels[0])
        if options.calibrate:
            report_calibration(options.labels)
    if options.false_alarms:
        report_false_alarms()
    if options.monitor:
        report_monitor()
    if options.rows:
        report_speed(options.rows)


if __name__ == "__main__":
    main()
