"""Made-up surfaces in the benchmark's formats, of another form than the search's model.

`python -m benchmarks.search.synthetic DIR [--grids N] [--seed S] [--form bent] [--noise 0]`

Choices of the procedure are made on these, so that the recorded surfaces stay a test. Each task draws its own shape:
arms of different powers, a cliff that moves with the batch, its own motion of the optimum with length, a smooth
departure from the bowl, noise that grows with the excess, missing cells, and an optimum anywhere in the grid. In the
straight form the optimum moves with length as a power law and the best rate with the batch size as another; in the bent
form the best rate levels off as the batch grows (the "surge" of Adam, 2405.14578: the slope falls by 1/2 tanh(z ln 2 / 2),
z octaves, times up to 1.2), and the optimum wanders on its way (a random walk, 0.3 octaves an octave of length).
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

LENGTHS = (
    (0.04, 0.11, 0.2, 1.0),
    (0.06, 0.25, 1.0),
    (0.125, 0.35, 1.0),
    (0.16, 0.45, 0.8, 1.0),
    (0.35, 1.0),
    (0.2, 0.5, 1.0),
)
MOST_SURGE, WANDER = 1.2, 0.3
WALK = np.arange(-5.0, 0.01, 0.25)
"""Log2 lengths between which the optimum wanders."""
FULL_TOKENS = 100e9


def write(
    folder: Path, *, num_grids: int = 24, num_adapters: int = 24, seed: int = 0, bent: bool = False, noise: float = 1.0
) -> None:
    """Two CSV files with so many tasks; `noise` scales that of the grids, and 0 gives the truth behind the same seed."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    grids = [row for k in range(num_grids) for row in grid(f"made{k:02d}", LENGTHS[k % len(LENGTHS)], rng, bent, noise)]
    _save(folder / "grids.csv", grids)
    _save(folder / "adapters.csv", [row for k in range(num_adapters) for row in adapter(f"lora{k:02d}", rng)])


def _save(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def grid(
    name: str, lengths: tuple[float, ...], rng: np.random.Generator, bent: bool, scale: float
) -> Iterator[dict[str, object]]:
    """Learning rate x batch size at several lengths."""
    rates = np.arange(12) * 0.5 - 12.0
    batches = np.array([16, 32, 64, 128, 192, 256, 384, 512, 1024, 2048])
    excess = _surface(rng, rates=(-10.7, -7.8), batches=(6.2, 9.8), bent=bent)
    level, fall, noise = rng.uniform(1.5, 3), rng.uniform(0.03, 0.08), 0.06 * math.exp(rng.normal(0, 0.5))
    for length in lengths:
        for x in rates:
            for batch in batches:
                if rng.random() < 0.03:
                    continue
                per_cent = excess(x, math.log2(batch), math.log2(length))
                sd = scale * (noise + 0.04 * max(per_cent, 0))
                loss = level * length**-fall * math.exp(min(per_cent + rng.normal(0, sd), 120) / 100)
                yield {
                    "surface": f"{name}_D{100 * length:g}B",
                    "D": f"{FULL_TOKENS * length:.4g}",
                    "lr": f"{2**x:.4g}",
                    "bs": batch,
                    "loss": f"{loss:.5f}",
                }


def _surface(
    rng: np.random.Generator, *, rates: tuple[float, float], batches: tuple[float, float], bent: bool
) -> Callable[[float, float, float], float]:
    """Per cent above the best of its length, as a function of log2 rate, log2 batch and log2 length."""
    best_x, best_v = rng.uniform(*rates), rng.uniform(*batches)
    slope, rate_exponent, batch_exponent = rng.uniform(0.15, 0.6), rng.normal(-0.05, 0.2), rng.uniform(0.3, 0.7)
    scale_x, scale_v = 0.45 * math.exp(rng.normal(0, 0.45)), 0.4 * math.exp(rng.normal(0, 0.45))
    left, right, small, large = rng.uniform(1.3, 2), rng.uniform(1.9, 2.6), rng.uniform(1.5, 2.1), rng.uniform(1.5, 2.2)
    cliff, cliff_slope = rng.uniform(2.3, 4.0), slope + rng.normal(0, 0.2)
    surge = rng.uniform(0, MOST_SURGE) if bent else 0.0
    walk_v, walk_x = (_walk(rng) if bent else np.zeros(len(WALK)) for _ in range(2))
    waves = [(rng.normal(0, 0.5, 3), rng.uniform(0, 2 * math.pi)) for _ in range(6)]
    ragged = rng.uniform(0.03, 0.12)

    def arm(z: float, below: float, above: float) -> float:
        return 0.5 * 1.4**2 * (abs(z) / 1.4) ** (below if z < 0 else above)

    def excess(x: float, v: float, length: float) -> float:
        across = v - best_v - batch_exponent * length - np.interp(length, WALK, walk_v)
        shift = rate_exponent * length + np.interp(length, WALK, walk_x)
        along = x - best_x - slope * (v - best_v) - shift + surge * math.log2(math.cosh(0.5 * math.log(2) * across))
        blown = x - best_x - cliff_slope * (v - best_v) - shift - cliff
        wave = sum(math.sin(k @ np.array([x, v, 0.7 * length]) + phase) for k, phase in waves)
        bowl = scale_x * arm(along, left, right) + scale_v * arm(across, small, large)
        return bowl + ragged * wave / math.sqrt(3) + 100 / (1 + math.exp(-5 * blown))

    return excess


def _walk(rng: np.random.Generator) -> np.ndarray:
    """A random walk back from the full length, where it is 0."""
    steps = rng.normal(0, WANDER * math.sqrt(WALK[1] - WALK[0]), len(WALK) - 1)
    return np.concatenate([np.cumsum(steps)[::-1], [0.0]])


def adapter(name: str, rng: np.random.Generator) -> Iterator[dict[str, object]]:
    """Learning rate x LoRA rank: more rank helps with falling returns, a little too much may hurt; the rate drifts with it."""
    rates = ((4e-5, 1e-4, 3e-4, 1e-3, 3e-3), (3e-5, 1e-4, 2e-4, 4e-4, 1e-3, 3e-3))[int(rng.integers(2))]
    ranks = ((1, 4, 16, 64), (4, 16, 64, 128), (1, 2, 4), (2, 8, 32))[int(rng.integers(4))]
    best, drift = rng.uniform(-12.8, -10), rng.uniform(0, 0.3)
    scale, left, right = 0.6 * math.exp(rng.normal(0, 0.5)), rng.uniform(1.2, 2), rng.uniform(1.9, 2.6)
    gain, fade = rng.uniform(0.1, 1.2), rng.uniform(0.5, 1)
    noise, cliff, level = 0.03 * math.exp(rng.normal(0, 0.5)), rng.uniform(2, 3.5), rng.uniform(0.4, 1.2)
    for rank in ranks:
        for rate in rates:
            z = math.log2(rate) - best - drift * math.log2(rank / 16)
            per_cent = scale * 0.5 * 1.4**2 * (abs(z) / 1.4) ** (left if z < 0 else right) + gain * fade ** math.log2(
                rank
            )
            loss = level * math.exp((per_cent + rng.normal(0, noise + 0.04 * per_cent)) / 100)
            yield {
                "model": name,
                "lr": f"{rate:g}",
                "lora_rank": rank,
                "eval_loss": "" if z > cliff else f"{loss:.4f}",
                "status": "diverged" if z > cliff else "ok",
            }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--grids", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--form", choices=("straight", "bent"), default="straight")
    parser.add_argument("--noise", type=float, default=1.0)
    args = parser.parse_args()
    write(args.folder, num_grids=args.grids, seed=args.seed, bent=args.form == "bent", noise=args.noise)
