"""The live page in Chromium: nothing of a study runs in it, and a study of ten thousand trials is there at once."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")
from finestep.ready import DataCard, Ready
from finestep.store import study_files
from finestep.store.commands import Command
from finestep.store.commands import ask as ask_study
from finestep.store.study_files import StudyFiles, read_spec
from finestep.studies.status import study_status
from finestep.trial import Cost, Outcome
from finestep.watch.study import LiveStudy

from ..flows.studies import open_store
from .served import ask, chromium, make_large_study, make_open_trial, make_study, served, study_id

HIT = "document.documentElement.dataset.pwn=1"
PAYLOADS = [
    f"<script>{HIT}</script>", f"</script><script>{HIT}</script>", f"<img src=x onerror={HIT}>",
    f"<svg onload={HIT}>", f"<svg/onload={HIT}>", f"<body onload={HIT}>",
    f"<iframe srcdoc='<script>parent.{HIT}</script>'>", f"<iframe src=javascript:parent.{HIT}>",
    f"<a href=javascript:{HIT}>x</a>", f"javascript:{HIT}", f"'-{HIT}-'", f'"-{HIT}-"', f"${{{HIT}}}", "{{7*7}}",
    "{{constructor.constructor('" + HIT + "')()}}", f"';{HIT};//", f"\";{HIT};//",
    f"\\u003cscript\\u003e{HIT}\\u003c/script\\u003e", f"&lt;script&gt;{HIT}&lt;/script&gt;",
    f"<math><mtext></form><form><mglyph><style></math><img src onerror={HIT}>",
    f"<style>@import 'javascript:{HIT}'</style>", f"<link rel=stylesheet href=javascript:{HIT}>",
    f"<object data=javascript:{HIT}>", f"<embed src=javascript:{HIT}>", f"<video><source onerror={HIT}></video>",
    f"<audio src onerror={HIT}>", f"<details open ontoggle={HIT}>", f"<input autofocus onfocus={HIT}>",
    f"<select autofocus onfocus={HIT}>", f"<textarea autofocus onfocus={HIT}>", f"<marquee onstart={HIT}>",
    f"<form action=javascript:{HIT}><input type=submit>", f"<isindex action=javascript:{HIT}>",
    f"<base href=javascript:{HIT}//>", f"<meta http-equiv=refresh content='0;url=javascript:{HIT}'>",
    f"<template><script>{HIT}</script></template>", f"]]><script>{HIT}</script>", f"--><script>{HIT}</script>",
    f"<!--><script>{HIT}</script>", f"<noscript><p title='</noscript><img src=x onerror={HIT}>'>",
    f"\u2028<script>{HIT}</script>", f"\u2029{HIT}", f"\x00<script>{HIT}</script>", f"<scr\x00ipt>{HIT}</scr\x00ipt>",
    f"<SCRIPT>{HIT}</SCRIPT>", f"<script src=data:,{HIT}></script>", f"<img src='x' onerror='{HIT}'",
    f"<<script>{HIT}//<</script>", f"\r\nevent: state\r\ndata: <script>{HIT}</script>", f"\n\ndata: {HIT}\n\n",
]  # fmt: skip
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--enable-logging=stderr",
    "--timeout=9000",
    "--dump-dom",
]


def opened(url: str, folder: Path) -> tuple[str, str]:
    """The page some seconds after it was opened, and what the console said."""
    command = [str(chromium()), *FLAGS, f"--user-data-dir={folder / 'profile'}", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console


def hostile_study(folder: Path) -> Path:
    """Every text of a study that its page shows is somebody's attack."""
    make_study(folder, budget=1, name=PAYLOADS[1])
    number = make_open_trial(folder, name=PAYLOADS[1])
    store = open_store(folder, name=PAYLOADS[1])
    for payload in PAYLOADS:
        store.add(store.spec.recipe, fidelity=1.0, stage=payload, why=payload)
    notes = store.trial_folder(number) / "notes.jsonl"
    notes.write_text("".join(json.dumps({"text": payload}) + "\n" for payload in PAYLOADS))
    store.close()
    done = [{"id": str(i), "kind": "add", "said": payload} for i, payload in enumerate(PAYLOADS)]
    (folder / "steering.json").write_text(json.dumps({"done": done}))
    return folder


def test_there_are_fifty_attacks():
    assert len(set(PAYLOADS)) == 50


@pytest.mark.long
@pytest.mark.skipif(chromium() is None, reason="no chromium on this machine")
def test_no_text_of_a_study_runs(tmp_path):
    folder = hostile_study(tmp_path / "study")
    running = open_store(folder, name=PAYLOADS[1])
    with served(folder) as address:
        page, console = opened(f"{address.url}", tmp_path)
        status, _, raw = ask(address, f"/study/{study_id(folder)}")
    running.close()
    assert status == 200
    assert page.count('class="live-stop"') == len(PAYLOADS) + 1, "every trial is shown, with its button"
    assert "event: state" in page
    assert page.count('class="live-note"') == 3
    assert "data-pwn" not in page[: page.index("<head")]
    assert "Content Security Policy" not in console, console
    outside = raw.split('<script type="application/json"')[0]
    assert "<img" not in outside
    assert HIT not in outside.replace("&#39;", "'").split("<title>")[0]


@pytest.mark.long
def test_ten_thousand_trials_are_there_at_once_and_their_curves_later(tmp_path):
    folder = make_large_study(tmp_path / "study", num_trials=10_000)
    live = LiveStudy(folder)
    live.look()
    live._weigher.join(120)
    view, data = live.page()
    assert len(view.table.trials) == 10_000
    assert json.loads(data)["curves"] == []
    place = StudyFiles(folder, read_spec(folder)).trial_folder(4321)
    place.mkdir(parents=True)
    record = {"step": 1, "loss": 2.0, "learning_rate": 1e-4, "grad_norm": 1.0, "clipped": False, "num_tokens": 10}
    (place / "steps.jsonl").write_text(json.dumps({**record, "num_loss_tokens": 5, "elapsed_s": 0.1}) + "\n")
    with served(folder) as address:
        name = study_id(folder)
        _, _, text = ask(address, f"/study/{name}")
        curve = json.loads(ask(address, f"/study/{name}/curve/4321")[2])
        assert ask(address, f"/study/{name}/curve/10000")[0] == 404
        assert json.loads(ask(address, f"/study/{name}/curve/1")[2]) == {}
    assert len(text.encode()) < 1_500_000
    assert (curve["trial"], curve["loss"]) == (4321, [2.0])


def test_the_list_compares_studies(tmp_path):
    for name in ("one", "two"):
        make_study(tmp_path / name, budget=2, name=name)
    with served(tmp_path) as address:
        status, _, text = ask(address, "/")
        found = json.loads(ask(address, "/studies")[2])["studies"]
    assert status == 200
    assert sorted(study["name"] for study in found) == ["one", "two"]
    assert all(study["best"]["eval_loss"] > 0 for study in found)
    assert str(tmp_path) in text


def test_what_was_asked_by_hand_is_told(tmp_path):
    folder = make_study(tmp_path / "study", budget=1)
    ask_study(folder, Command(kind="add", learning_rate=7e-4))
    make_study(folder, budget=2)
    live = LiveStudy(folder)
    live.look()
    assert live.state["steering"] == ["added by hand: trial 1, 0.0007 x 16 at full length"]
    assert live.state["zh"][live.state["steering"][0]] == "手动添加：试验 1，0.0007 x 16，完整长度"
    live._weigher.join(60)
    assert "added by hand" in json.loads(live.page()[1])["trials"]["words"]


def test_a_study_in_which_nothing_happens_is_not_read_again(tmp_path, monkeypatch):
    """A page of many trials asks a few times a second; reading them all each time took a whole core."""
    live = LiveStudy(make_study(tmp_path / "study", budget=3))
    live.look()
    live._weigher.join(60)
    first, reads = live.state, []
    monkeypatch.setattr(study_files, "read_database", lambda *words: reads.append(words) or [])
    live.look()
    assert not reads
    assert live.state["trials"] == first["trials"] == {"completed": 3}


def test_what_was_spent_is_the_same_wherever_it_is_said(tmp_path):
    """Where trials differ in their epochs, and where a run of any length costs a start."""
    folder = tmp_path / "study"
    store = open_store(folder)
    longer = store.spec.recipe.model_copy(update={"num_epochs": 3 * store.spec.recipe.num_epochs})
    trial = store.add(longer, fidelity=1.0, stage="search", why="longer")
    store.finish(trial.number, Outcome(state="completed", eval_loss=1.0, cost=Cost(num_train_tokens=3000)))
    store.keep_ready(Ready(card=DataCard(fixed_share=0.25)))
    store.close()
    live = LiveStudy(folder)
    live.look()
    live._weigher.join(60)
    assert study_status(folder).spent == live.state["spent"] == pytest.approx(0.25 + 0.75 * 3)
