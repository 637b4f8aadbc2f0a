"""A live page on a port of its own, in this process, and studies for it that nothing was trained for."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from finestep.executors.replay import ReplayExecutor
from finestep.search.sweep import Sweep
from finestep.studies.tuning import Tuning
from finestep.study import Budget
from finestep.watch.serve import Address, listening, make_server

from ..flows.studies import CARD, basin, open_store

TOKEN = "a-token-of-24-characters"


def make_study(folder: Path, *, budget: float = 4, **changes) -> Path:
    """A finished study on recorded losses."""
    store = open_store(folder, **changes)
    tuning = Tuning(
        store,
        ReplayExecutor(basin, card=CARD, num_train_rows=4000),
        lambda card: Sweep("lora"),
        Budget(full_runs=budget),
    )
    for _ in tuning.run():
        pass
    store.close()
    return folder


def make_open_trial(folder: Path, *, steps: int = 40, **changes) -> int:
    """A trial that was under way when its study was killed; its number."""
    store = open_store(folder, **changes)
    trial = store.add(store.spec.recipe, fidelity=1.0, stage="full runs", why="it was under way")
    place = store.trial_folder(trial.number)
    with (place / "steps.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            record = {
                "step": step,
                "loss": 3 - step / 50,
                "learning_rate": 1e-4,
                "num_tokens": 100,
                "elapsed_s": step / 10,
            }
            file.write(json.dumps(record) + "\n")
    store.close()
    return trial.number


@contextlib.contextmanager
def served(place: Path, *, host: str = "127.0.0.1", token: str | None = TOKEN) -> Iterator[Address]:
    """The page of a place, while the context lasts."""
    listener = listening(host, 0)
    address = Address(host, listener.getsockname()[1], token)
    server = make_server(place, address)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join(10)


def ask(
    address: Address, path: str, *, method: str = "GET", body: str | None = None, **headers
) -> tuple[int, dict, str]:
    """(status, headers, body) of one request; headers by name with _ for -; `host=None` sends none of it."""
    connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=60)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.putrequest(method, path, skip_host="host" in sent, skip_accept_encoding=True)
    for name, value in sent.items():
        if value is not None:
            connection.putheader(name, value)
    if body is not None:
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body.encode() if body is not None else None)
    answer = connection.getresponse()
    text = "" if "events" in path and answer.status == 200 else answer.read().decode("utf-8", "replace")
    found = {name.lower(): value for name, value in answer.getheaders()}
    connection.close()
    return answer.status, found, text


def chromium() -> str | None:
    """Debian's Chromium, or another; None without one."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def cookie(address: Address) -> str:
    return f"finestep_token_{address.port}={address.token}"


def study_id(folder: Path) -> str:
    import hashlib

    return hashlib.sha256(str(Path(os.path.realpath(folder))).encode()).hexdigest()[:12]


def make_large_study(folder: Path, *, num_trials: int) -> Path:
    """A study of very many trials, written into its database at once; nothing of it was trained."""
    import math
    import random
    import sqlite3

    from finestep.recipe import Recipe
    from finestep.trial import Cost, Outcome, Trial

    open_store(folder, strategy="random").close()
    chance, rows = random.Random(0), []
    for number in range(num_trials):
        x = chance.gauss(0, 0.6)
        loss = 1 + 0.3 * x * x + abs(chance.gauss(0, 0.02))
        recipe = Recipe(learning_rate=1e-3 * 10**x, effective_batch_size=chance.choice([8, 16, 32, 64]))
        outcome = Outcome(
            state="completed", reason=f"all {number % 900} steps", eval_loss=loss, cost=Cost(elapsed_s=3.0)
        )
        trial = Trial(
            number=number,
            recipe=recipe,
            fidelity=chance.choice([0.125, 1.0]),
            stage="random",
            why=f"place {number}, {math.exp(x):.3f}",
            state="completed",
            outcome=outcome,
        )
        rows.append((number, json.dumps(trial.model_dump_json())))
    database = sqlite3.connect(folder / "study.db")
    study = database.execute("select study_id from studies").fetchone()[0]
    database.executemany(
        "insert into trials (trial_id, number, study_id, state) values (?, ?, ?, 'COMPLETE')",
        [(number + 1, number, study) for number, _ in rows],
    )
    database.executemany(
        "insert into trial_user_attributes (trial_id, key, value_json) values (?, 'trial', ?)",
        [(number + 1, text) for number, text in rows],
    )
    database.commit()
    database.close()
    return folder
