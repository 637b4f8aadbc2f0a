"""`python -m benchmarks.memory [--json OUT]`: predicted peaks against real ones on a CPU, and the time of a 70B prediction.

`--device cuda [--model 0.5B] [--few]`: peaks and largest micro-batches against the engine's own loop on a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
MIB = 2**20
ALLOWED = 3.0


def main() -> int:
    """Print the table; the exit code is 1 when a case is off by more than 3 % or 70B takes over 10 s."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="Write the figures to this file.")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="0.5B", help="Shape of the model on a GPU.")
    parser.add_argument("--few", action="store_true", help="Two cases and one limit on a GPU.")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.device == "cuda":
        from benchmarks.memory.on_cuda import run

        return run(model=options.model, out=options.json, few=options.few)
    from benchmarks.memory.cases import CASES, child

    if options.child is not None:
        print(json.dumps({"bytes": child(options.child)}))
        return 0
    print(f"{'case (6 layers, 512 wide, 32k words)':44}{'predicted':>10}{'allocator':>10}{'resident':>10}   off by")
    rows = [_row(number) for number in range(len(CASES))]
    large = _large()
    worst = max(abs(row["off_percent"]) for row in rows)
    print(f"largest error {worst:.2f} % of the allocator's peak; 70B: {large}")
    if options.json:
        options.json.write_text(json.dumps({"cases": rows, "worst_percent": worst, "seconds_70b": large}, indent=1))
    return int(worst > ALLOWED or large["one_setting_s"] > 10)


def _row(number: int) -> dict:
    from benchmarks.memory.cases import CASES, allocator_peak, config, resident_peak
    from finestep.probes.predict import Predictor
    from finestep.rules.memory_lines import peak_bytes

    case = CASES[number]
    started = time.monotonic()
    predicted = peak_bytes(Predictor(config(), case.memory_case).curve(case.length, lever=case.lever), case.rows)
    seconds = time.monotonic() - started
    real, resident = allocator_peak(case), resident_peak(number)
    row = {
        "case": case.name,
        "predicted_mib": round(predicted / MIB, 1),
        "allocator_mib": round(real / MIB, 1),
        "resident_mib": round(resident / MIB, 1),
        "off_percent": round(100 * (predicted / real - 1), 3),
        "off_resident_percent": round(100 * (predicted / resident - 1), 2),
        "seconds": round(seconds, 1),
    }
    print(
        f"{case.name:44}{row['predicted_mib']:10.1f}{row['allocator_mib']:10.1f}{row['resident_mib']:10.1f}"
        f"   {row['off_percent']:+.2f} %, {row['off_resident_percent']:+.2f} %",
        flush=True,
    )
    return row


def _large() -> dict[str, float]:
    """Seconds for a 70B model: one setting, and all four."""
    from benchmarks.memory.cases import SHAPE_70B, config
    from finestep.probe import Lever, MemoryCase
    from finestep.probes.predict import predict

    case = MemoryCase(method="lora", weights_dtype="bfloat16", autocast=True)
    every = [Lever(checkpointing=on, chunk_tokens=chunk) for on in (False, True) for chunk in (None, 256)]
    one = predict(config(SHAPE_70B), case, length=2048, levers=every[:1]).elapsed_s
    return {
        "one_setting_s": one,
        "four_settings_s": predict(config(SHAPE_70B), case, length=2048, levers=every).elapsed_s,
    }


if __name__ == "__main__":
    raise SystemExit(main())
