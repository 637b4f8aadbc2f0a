"""Which options `--help` shows of the commands that have many: what most people need, in two groups. `--help-all` shows all."""

from __future__ import annotations

USUAL: dict[str, dict[str, tuple[str, ...]]] = {
    "tune": {
        "What to train": ("--method", "--epochs", "--set", "--columns", "--prompt", "--completion", "--max-length"),
        "How to search": ("--budget", "--time", "--objective", "--metric", "--command", "--out", "--json"),
    },
    "train": {
        "What to train": ("--set", "--columns", "--prompt", "--completion", "--eval-data"),
        "How to run": ("--metric", "--on-trouble", "--device", "--out", "--json"),
    },
    "recommend": {
        "What to train": ("--method", "--params", "--epochs", "--rank", "--columns", "--prompt"),
        "What to answer": ("--gpu", "--batch", "--from", "--explain", "--yaml", "--json"),
    },
    "probe": {
        "What to measure": ("--predict", "--method", "--batch", "--rank", "--max-length", "--set"),
        "How": ("--gpu", "--device", "--time", "--price-per-hour", "--again", "--json"),
    },
}


def usual_titles(command: str | None) -> dict[str, str]:
    """Option -> title of its group; empty for a command that shows all of its options at once."""
    groups = USUAL.get(command or "", {})
    return {option: title for title, options in groups.items() for option in options}
