"""Memory and time of reading a million rows: split and tokenised whole, and a thousand of them by `--max-rows`.

    python -m benchmarks.rows [--rows 1000000] [--json OUT]

Each measurement runs in a process of its own. What is counted is the peak of its memory above what it had after its imports, and
the processor's time, which other work on the machine does not change.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WORDS = ("cloud", "river", "stone", "north", "winter", "summer", "train", "paper", "green", "small", "tall", "fast")
WHOLE, FEW = "split and tokenised", "--max-rows 1000"
MEASURE = """
import json, resource, sys, time
import psutil
from finestep.studies.spec import SHIPPED_MODEL
from finestep.study import DataSpec, ModelSpec
from finestep.train.model import load_tokenizer
from finestep.train.tokens import prepare_data
path, most = sys.argv[1], int(sys.argv[2]) or None
tokenizer = load_tokenizer(ModelSpec(path=str(SHIPPED_MODEL)))
spec = DataSpec(path=path, max_rows=most)
before, began = psutil.Process().memory_info().rss, time.process_time()
data = prepare_data(spec, tokenizer, context_length=512)
used = time.process_time() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"bytes": peak - before, "total_bytes": peak, "seconds": used, "rows": len(data.train) + len(data.evaluation)}))
"""


def write_rows(path: Path, num_rows: int) -> None:
    """Pairs of a prompt and an answer, 70 bytes each."""
    chance = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_rows):
            asked = f"{chance.choice(WORDS)} {number:07} {chance.choice(WORDS)}"
            answered = f"{chance.choice(WORDS)} {chance.choice(WORDS)}"
            file.write(f'{{"prompt": "{asked}", "completion": "{answered}"}}\n')


def measure(path: Path, most: int) -> dict[str, Any]:
    """Run one measurement; `most` rows, or all for 0."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), str(most)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_rows(path, options.rows)
        size = path.stat().st_size
        found = {FEW: measure(path, 1000), WHOLE: measure(path, 0)}
    print(f"{options.rows:,} rows, {size / 1e6:.0f} MB")
    print("| what | rows | memory above imports | times the file | seconds of processor |")
    print("|---|---|---|---|---|")
    for name, one in found.items():
        print(
            f"| {name} | {one['rows']:,} | {one['bytes'] / 1e6:.0f} MB | {one['bytes'] / size:.1f} | {one['seconds']:.1f} |"
        )
    if options.json:
        options.json.write_text(json.dumps({"file_bytes": size, **found}, indent=1))


if __name__ == "__main__":
    main()
