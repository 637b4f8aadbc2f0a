"""Write one training history in every log format that `finestep diagnose` reads, with the real writers where they
install.

    python -m venv /tmp/writers && /tmp/writers/bin/pip install torch transformers tensorboardX wandb "mlflow-skinny" \
        sqlalchemy alembic trackio lightning
    /tmp/writers/bin/python scripts/make_log_fixtures/make.py tests/readers/fixtures

A writer that is missing is named and its fixture is left as it is. LLaMA-Factory, Axolotl, ms-swift, torchtune,
litgpt and
W&B's CSV export are written from the documented formats of those tools, because they do not install without a GPU or
an account.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

NUM_STEPS, EVAL_EVERY, PEAK = 40, 10, 2e-4


def history() -> tuple[list[dict], list[dict]]:
    """Training rows and evaluations: exactly the numbers that the tests expect back."""
    train, evals = [], []
    for step in range(1, NUM_STEPS + 1):
        loss = 1.0 + 1.2 * math.exp(-step / 12) + 0.03 * math.sin(7.0 * step)
        rate = PEAK * min(step / 4, (NUM_STEPS - step) / (NUM_STEPS - 4))
        norm = 1.0 + 0.2 * math.sin(3.0 * step)
        train.append(
            {
                "loss": round(loss, 4),
                "grad_norm": round(norm, 4),
                "learning_rate": rate,
                "epoch": step / 20,
                "step": step,
            }
        )
        if step % EVAL_EVERY == 0:
            evals.append({"eval_loss": round(1.02 + 1.1 * math.exp(-step / 12), 4), "epoch": step / 20, "step": step})
    return train, evals


def interleaved() -> list[dict]:
    """All rows in the order in which a Trainer logs them."""
    train, evals = history()
    at = {row["step"]: row for row in evals}
    return [each for row in train for each in ([row, at[row["step"]]] if row["step"] in at else [row])]


def trainer_state(folder: Path) -> None:
    """`trainer_state.json` by transformers itself."""
    from transformers.trainer_callback import TrainerState

    state = TrainerState(global_step=NUM_STEPS, max_steps=NUM_STEPS, num_train_epochs=2, logging_steps=1, epoch=2.0)
    state.log_history = interleaved()
    state.save_to_json(str(folder / "trainer_state.json"))
    (folder / "log_history_list.json").write_text(json.dumps(interleaved(), indent=1))


def trl_state(folder: Path) -> None:
    """TRL's extra keys in a trainer state."""
    from transformers.trainer_callback import TrainerState

    extra = {"entropy": 1.5, "mean_token_accuracy": 0.6, "num_tokens": 100.0, "train_runtime": 3.0}
    state = TrainerState(global_step=NUM_STEPS, max_steps=NUM_STEPS, num_train_epochs=2, logging_steps=1, epoch=2.0)
    state.log_history = [{**row, **extra} if "loss" in row else row for row in interleaved()]
    state.save_to_json(str(folder / "trl_trainer_state.json"))


def axolotl_state(folder: Path) -> None:
    """Axolotl's extra keys in a trainer state."""
    from transformers.trainer_callback import TrainerState

    state = TrainerState(global_step=NUM_STEPS, max_steps=NUM_STEPS, num_train_epochs=2, logging_steps=1, epoch=2.0)
    state.log_history = [
        {**row, "ppl": math.exp(row["loss"]), "memory/max_active (GiB)": 5.1, "tokens/total": 10 * row["step"]}
        if "loss" in row
        else {**row, "eval_ppl": math.exp(row["eval_loss"])}
        for row in interleaved()
    ]
    state.save_to_json(str(folder / "axolotl_trainer_state.json"))


def trainer_output(folder: Path) -> None:
    """What the Trainer prints, by its own printer, with a progress bar glued to some rows."""
    from transformers.trainer_callback import PrinterCallback, TrainerControl, TrainerState

    out = io.StringIO()
    state, printer = TrainerState(is_local_process_zero=True), PrinterCallback()
    with contextlib.redirect_stdout(out):
        for row in interleaved():
            if row["step"] % 3 == 0:
                print(f"\r {row['step']}%|###   | {row['step']}/40 [00:01<00:05,  1.5it/s]", end="")
            printer.on_log(None, state, TrainerControl(), logs={k: v for k, v in row.items() if k != "step"})
    (folder / "trainer_output.txt").write_text(out.getvalue())


def llamafactory(folder: Path) -> None:
    """LLaMA-Factory's trainer_log.jsonl; its last row has no loss."""
    lines = []
    for row in interleaved():
        shared = {
            "epoch": row["epoch"],
            "percentage": 100 * row["step"] / NUM_STEPS,
            "elapsed_time": "0:00:25",
            "remaining_time": "0:07:20",
        }
        head = {"current_steps": row["step"], "total_steps": NUM_STEPS}
        body = {"loss": row["loss"], "lr": row["learning_rate"]} if "loss" in row else {"eval_loss": row["eval_loss"]}
        lines.append(json.dumps({**head, **body, **shared}))
    lines.append(
        json.dumps({"current_steps": NUM_STEPS, "total_steps": NUM_STEPS, "epoch": 2.0, "elapsed_time": "0:08:12"})
    )
    (folder / "llamafactory_trainer_log.jsonl").write_text("\n".join(lines) + "\n")


def ms_swift(folder: Path) -> None:
    """ms-swift's logging.jsonl."""
    rows = [
        {
            **{k: v for k, v in row.items() if k != "step"},
            "global_step/max_steps": f"{row['step']}/{NUM_STEPS}",
            "memory(GiB)": 5.2,
        }
        for row in interleaved()
    ]
    (folder / "ms_swift_logging.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def torchtune(folder: Path) -> None:
    """torchtune's DiskLogger; validation rows hold `val_loss`."""
    lines = []
    for row in interleaved():
        if "loss" in row:
            lines.append(
                f"Step {row['step']} | loss:{row['loss']} lr:{row['learning_rate']} grad_norm:{row['grad_norm']} "
            )
        else:
            lines.append(f"Step {row['step']} | val_loss:{row['eval_loss']} ")
    (folder / "torchtune_log.txt").write_text("\n".join(lines) + "\n")


def lightning_csv(folder: Path) -> None:
    """Lightning's CSVLogger, with rates and losses on rows of their own."""
    from lightning.pytorch.loggers import CSVLogger

    with tempfile.TemporaryDirectory() as place:
        logger = CSVLogger(place)
        for row in interleaved():
            if "loss" in row:
                logger.log_metrics({"lr-AdamW": row["learning_rate"]}, step=row["step"])
                values = {"train_loss_step": row["loss"], "grad_norm": row["grad_norm"], "epoch": row["epoch"]}
                logger.log_metrics(values, step=row["step"])
            else:
                logger.log_metrics({"val_loss": row["eval_loss"], "epoch": row["epoch"]}, step=row["step"])
        logger.save()
        shutil.copy(Path(logger.log_dir) / "metrics.csv", folder / "lightning_metrics.csv")


def litgpt_csv(folder: Path) -> None:
    """litgpt's metrics.csv, by Lightning Fabric's CSVLogger and litgpt's column names."""
    from lightning.fabric.loggers import CSVLogger

    with tempfile.TemporaryDirectory() as place:
        logger = CSVLogger(place)
        for row in interleaved():
            if "loss" in row:
                values = {"loss": row["loss"], "iter": row["step"], "epoch": row["epoch"], "iter_time": 0.1,
                          "learning_rate": row["learning_rate"], "grad_norm": row["grad_norm"]}  # fmt: skip
            else:
                values = {"val_loss": row["eval_loss"], "val_ppl": math.exp(row["eval_loss"])}
            logger.log_metrics(values, step=row["step"])
        logger.save()
        shutil.copy(Path(logger.log_dir) / "metrics.csv", folder / "litgpt_metrics.csv")


def tensorboard(folder: Path) -> None:
    """TensorBoard events, by tensorboardX."""
    from tensorboardX import SummaryWriter

    with tempfile.TemporaryDirectory() as place:
        writer = SummaryWriter(place)
        arguments = {
            "max_steps": NUM_STEPS,
            "num_train_epochs": 2.0,
            "learning_rate": PEAK,
            "fp16": False,
            "bf16": True,
        }
        writer.add_text("args", json.dumps(arguments))
        for row in interleaved():
            prefix = "train" if "loss" in row else "eval"
            for key, value in row.items():
                if key != "step":
                    writer.add_scalar(f"{prefix}/{key.removeprefix('eval_')}", value, row["step"])
        writer.close()
        shutil.copy(next(Path(place).iterdir()), folder / "events.out.tfevents.fixture")


def wandb_offline(folder: Path) -> None:
    """A W&B offline run, by wandb."""
    import wandb

    with tempfile.TemporaryDirectory() as place:
        # Nothing of the machine that made the fixture: no metadata, no git, no terminal output.
        settings = wandb.Settings(
            silent=True, x_disable_meta=True, x_disable_stats=True, disable_git=True, console="off"
        )
        run = wandb.init(mode="offline", dir=place, project="fixture", settings=settings)
        for row in interleaved():
            prefix = "train" if "loss" in row else "eval"
            named = {f"{prefix}/{k.removeprefix('eval_')}": v for k, v in row.items() if k not in ("step", "epoch")}
            run.log({**named, "train/global_step": row["step"], "train/epoch": row["epoch"]})
        run.finish()
        shutil.copy(next(Path(place).rglob("run-*.wandb")), folder / "run-fixture.wandb")


def wandb_panel(folder: Path) -> None:
    """A CSV export of a W&B panel."""
    with (folder / "wandb_panel.csv").open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        name = "fine-run - train/loss"
        writer.writerow(["train/global_step", name, name + "__MIN", name + "__MAX"])
        for row in history()[0]:
            writer.writerow([row["step"], *[row["loss"]] * 3])


def mlflow_stores(folder: Path) -> None:
    """MLflow's SQLite store and its file store, by mlflow."""
    import mlflow

    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    for kind in ("sqlite", "files"):
        with tempfile.TemporaryDirectory() as place:
            uri = f"sqlite:///{place}/mlflow.db" if kind == "sqlite" else f"file://{place}/mlruns"
            client = mlflow.MlflowClient(tracking_uri=uri)
            run = client.create_run(client.create_experiment("fixture", artifact_location=f"file://{place}/art"))
            for row in interleaved():
                for key, value in row.items():
                    if key != "step":
                        client.log_metric(
                            run.info.run_id, key, value, step=row["step"], timestamp=1_700_000_000_000 + row["step"]
                        )
            if kind == "sqlite":
                _slim_copy(Path(place) / "mlflow.db", folder / "mlflow.db")
            else:
                source = next(each for each in Path(place).rglob("metrics") if each.is_dir()).parent
                shutil.rmtree(folder / "mlflow_run", ignore_errors=True)
                shutil.copytree(source / "metrics", folder / "mlflow_run" / "metrics")
                (folder / "mlflow_run" / "meta.yaml").write_text("run_name: fixture\n")


def _slim_copy(source: Path, target: Path) -> None:
    """Only the table of metrics; the dozens of other tables are empty."""
    import sqlite3

    target.unlink(missing_ok=True)
    old, new = sqlite3.connect(source), sqlite3.connect(target)
    (schema,) = old.execute("SELECT sql FROM sqlite_master WHERE name = 'metrics'").fetchone()
    new.execute(
        schema.split(", \n\tFOREIGN")[0].split(",\n\tFOREIGN")[0].rstrip(") \n") + "))"
        if "FOREIGN" in schema
        else schema
    )
    rows = old.execute("SELECT * FROM metrics").fetchall()
    new.executemany(f"INSERT INTO metrics VALUES ({','.join('?' * len(rows[0]))})", rows)
    new.commit()


def trackio_project(folder: Path) -> None:
    """A trackio project, by trackio."""
    with tempfile.TemporaryDirectory() as place:
        os.environ["TRACKIO_DIR"] = place
        import trackio

        run = trackio.init(project="fixture", name="fine-run")
        for row in interleaved():
            prefix = "train" if "loss" in row else "eval"
            named = {f"{prefix}/{k.removeprefix('eval_')}": v for k, v in row.items() if k not in ("step", "epoch")}
            run.log({**named, "train/global_step": row["step"], "train/epoch": row["epoch"]})
        trackio.finish()
        _slim_copy(next(Path(place).rglob("*.db")), folder / "trackio.db")


def plain(folder: Path) -> None:
    """A CSV and JSON lines as people write them, and finestep's own step log."""
    with (folder / "plain.csv").open("w", newline="") as file:
        names = ["step", "train_loss", "val_loss", "lr", "grad_norm", "epoch"]
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        at = {row["step"]: row["eval_loss"] for row in history()[1]}
        for row in history()[0]:
            writer.writerow({"step": row["step"], "train_loss": row["loss"], "val_loss": at.get(row["step"], ""),
                             "lr": row["learning_rate"], "grad_norm": row["grad_norm"], "epoch": row["epoch"]})  # fmt: skip
    rows = [{"iteration": row["step"], **{k: v for k, v in row.items() if k != "step"}} for row in interleaved()]
    (folder / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


WRITERS: tuple[Callable[[Path], None], ...] = (
    trainer_state, trl_state, axolotl_state, trainer_output, llamafactory, ms_swift, torchtune, lightning_csv,
    litgpt_csv,
    tensorboard, wandb_offline, wandb_panel, mlflow_stores, trackio_project, plain,
)  # fmt: skip


def main() -> None:
    """Run every writer; say which are missing."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for writer in WRITERS:
        try:
            writer(folder)
        except ImportError as error:
            print(f"left as it is: {writer.__name__} ({error})")


if __name__ == "__main__":
    main()
