"""`finestep doctor`: what is installed, which device there is, and what is missing for what."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import typer

if TYPE_CHECKING:
    from finestep.executors.local import TorchReport

EXTRAS = {
    "train": ("torch", "transformers", "peft", "safetensors", "scikit-learn", "pyarrow", "psutil"),
    "hub": ("datasets",),
    "quant": ("bitsandbytes",),
    "postgres": ("psycopg",),
}


def doctor(as_json: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """Say what is installed, which device there is, what is missing."""
    import json

    from finestep.cli.terminal import open_console

    report = _examine()
    if as_json:
        typer.echo(json.dumps(report))
        return
    console = open_console()
    console.print(f"finestep {report['finestep']}, Python {report['python']} on {report['platform']}")
    for extra, packages in report["extras"].items():
        have = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
        missing = [name for name, version in packages.items() if not version]
        advice = f"   missing: {', '.join(missing)}  ->  pip install 'finestep[{extra}]'" if missing else ""
        console.print(f"{extra:<10}{have or 'nothing installed'}{advice}", soft_wrap=True, markup=False)
    console.print("device    " + _device_words(report["device"]), soft_wrap=True, markup=False)


class _Report(TypedDict):
    """What is installed, and what torch says of this machine."""

    finestep: str
    python: str
    platform: str
    extras: dict[str, dict[str, str | None]]
    device: TorchReport


def _examine() -> _Report:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from finestep import __version__
    from finestep.executors.local import doctor_report

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    extras = {extra: {name: installed(name) for name in names} for extra, names in EXTRAS.items()}
    device = (
        doctor_report()
        if extras["train"]["torch"]
        else {"error": ["torch is not installed: recommend, report and diagnose work, training does not"]}
    )
    return {
        "finestep": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "extras": extras,
        "device": device,
    }


def _device_words(device: TorchReport) -> str:
    if "error" in device:
        return " ".join(device["error"])
    if device["cuda"]:
        return f"CUDA {device['cuda_version']}: {', '.join(device['devices'])}"
    if device["mps"]:
        return "Apple GPU (MPS)"
    return f"CPU only, {device['threads']} threads: small models and LoRA; no qlora"
