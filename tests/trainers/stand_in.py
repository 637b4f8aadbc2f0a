"""A program that reads a config and prints what the Hugging Face Trainer prints, in a second and without torch: python stand_in.py FILE

Settings of its own, in the same file: `own_rate` (it ignores the rate that it is told), `memory_rows` (more rows a pass are too many),
`own_batch` (so many more rows a step than it is told),
`says` (its last words before it fails), `hangs_after` (a step), `fails_above` (a rate).
"""

import json
import math
import sys
import time
from pathlib import Path

from ruamel.yaml import YAML

NUM_ROWS_DEFAULT = 160


def main():
    config = YAML(typ="safe", pure=True).load(Path(sys.argv[1]).read_text())
    micro, passes = config["per_device_train_batch_size"], config["gradient_accumulation_steps"]
    steps, told = config["max_steps"], float(config["learning_rate"])
    rate = float(config.get("own_rate") or told)
    if config.get("says"):
        print(config["says"], file=sys.stderr)
        print("subprocess.CalledProcessError: Command '['python']' returned non-zero exit status 1.", file=sys.stderr)
        sys.exit(1)
    if told > config.get("fails_above", math.inf):
        print("RuntimeError: this rate is not wanted", file=sys.stderr)
        sys.exit(1)
    if micro > config.get("memory_rows", math.inf):
        print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", file=sys.stderr)
        sys.exit(1)
    print(f"  Num examples = {config.get('rows', NUM_ROWS_DEFAULT)}")
    print(f"  Total train batch size (w. parallel) = {micro * passes + config.get('own_batch', 0)}")
    print(f"  Total optimization steps = {steps}")
    warmup, best = config.get("warmup_steps", 0), math.log2(3e-3)
    for step in range(1, steps + 1):
        used = rate * min(1.0, (step - 1) / warmup) if step <= warmup else rate * (steps - step + 1) / (steps - warmup)
        loss = 2 + 3 * math.exp(-3 * step / steps) + 0.05 * (math.log2(rate) - best) ** 2 * step / steps
        if step % config["logging_steps"] == 0:
            print(
                {"loss": f"{loss:.4f}", "grad_norm": "1.1", "learning_rate": f"{used:.4g}", "epoch": "0.1"}, flush=True
            )
        if config.get("hangs_after") == step:
            time.sleep(600)
        time.sleep(config.get("step_s", 0.0))
    final = 2.0 + 0.05 * (math.log2(rate) - best) ** 2
    print(
        {
            "eval_loss": f"{final:.4f}",
            "eval_rewards/accuracies": f"{1 / final:.4f}",
            "eval_runtime": "0.1",
            "eval_kl": f"{100 * rate:.4f}",
        }
    )
    Path(config["output_dir"]).mkdir(parents=True, exist_ok=True)
    (Path(config["output_dir"]) / "adapter_config.json").write_text(json.dumps({"r": 8}))


main()
