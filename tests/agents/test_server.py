"""A whole study through the client of the Model Context Protocol, as an agent runs it; and what it is told when something fails."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time

import pytest

from finestep.agents.commands import failure_of, was_cut_off
from finestep.agents.next_steps import in_tools
from finestep.store.running import write_running
from finestep.study import Budget

pytest.importorskip("mcp")
from mcp import Client, StdioServerParameters

ROWS = [{"prompt": f"Say {n} again.", "completion": f"{n}", "note": "a remark that nobody reads"} for n in range(40)]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def talk(conversation, monkeypatch, tmp_path):
    """Play a conversation with a server that runs as `finestep mcp`."""
    place = {**os.environ, "FINESTEP_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    server = StdioServerParameters(command=sys.executable, args=["-m", "finestep", "mcp"], env=place)

    async def play():
        async with Client(server) as client:

            async def ask(tool, **arguments):
                answer = await client.call_tool(tool, arguments)
                text = "".join(part.text for part in answer.content)
                return (not answer.is_error), json.loads(text[text.index("{") :])

            await conversation(client, ask)

    asyncio.run(asyncio.wait_for(play(), timeout=300))


@pytest.mark.long
def test_a_whole_study_from_the_data_to_the_export(rows, monkeypatch, tmp_path):
    study = tmp_path / "study"

    async def conversation(client, ask):
        assert "not used" in (await client.list_tools()).model_dump_json()
        assert "80 % interval" in client.instructions
        _, seen = await ask("inspect_data", data=str(rows))
        assert any("`note`" in note for note in seen["notes"])
        _, advice = await ask("recommend", model="shipped", data=str(rows))
        assert advice["recipe"]["method"] == "lora"
        settings = ["max_length=48", "num_epochs=1"]
        fine, _ = await ask("start_study", model="shipped", data=str(rows), out=str(study), budget=1, settings=settings)
        assert fine
        fine, busy = await ask("start_study", model="shipped", data=str(rows), out=str(study), budget=1)
        assert (fine, busy["kind"]) == (False, "StudyBusy")
        while (now := (await ask("wait_for_study", study=str(study), timeout_s=20))[1])["working"]:
            pass
        assert now["best"]["eval_loss"] > 0
        _, result = await ask("study_result", study=str(study))
        assert result["best"]["trial"] == now["best"]["trial"]
        assert result["settled"] is False
        _, made = await ask(
            "export_recipe",
            study=str(study),
            framework="hf",
            output=str(tmp_path / "out"),
            model="shipped",
            data=str(rows),
        )
        assert made["files"]
        assert made["command"]

    talk(conversation, monkeypatch, tmp_path)


def test_what_fails_says_the_next_step(rows, monkeypatch, tmp_path):
    async def conversation(client, ask):
        fine, told = await ask("inspect_data", data=str(tmp_path / "nothing.jsonl"))
        assert not fine
        assert told["exit_code"] == 2
        assert "no such data file" in told["message"]
        assert told["next_step"]
        fine, told = await ask("study_status_of", study=str(tmp_path))
        assert not fine
        assert "no study" in told["message"]
        assert "`out` has named" in told["next_step"]
        fine, told = await ask("study_result", study=str(tmp_path))
        assert not fine
        assert "`out` has named" in told["next_step"]

    talk(conversation, monkeypatch, tmp_path)


@pytest.mark.long
def test_a_start_that_fails_is_said_by_every_tool(rows, monkeypatch, tmp_path):
    """A file that is not there, a setting beyond the model, and a folder that holds another study."""

    async def conversation(client, ask):
        study = tmp_path / "none"
        fine, told = await ask("start_study", model="shipped", data=str(tmp_path / "no.jsonl"), out=str(study))
        assert (fine, told["kind"], told["exit_code"]) == (False, "BadInput", 2)
        assert "no such data file" in told["message"]
        for tool in ("wait_for_study", "study_status_of", "study_result"):
            fine, told = await ask(tool, study=str(study))
            assert not fine
            assert "no such data file" in told["message"]

        study = tmp_path / "long"
        fine, told = await ask("start_study", model="shipped", data=str(rows), out=str(study), max_length=4096)
        while fine:
            fine, told = await ask("wait_for_study", study=str(study), timeout_s=10)
            assert not fine or told["working"]
        assert "at most the model's context" in told["message"]
        assert "--help" not in told["next_step"]
        assert "max_length" in told["next_step"]
        assert told["log"] == str(study / "agent.log")

        fine, begun = await ask("start_study", model="shipped", data=str(rows), out=str(study), budget=1, max_length=48)
        assert fine
        assert begun["log"] == str(study / "agent.log")
        while (now := (await ask("wait_for_study", study=str(study), timeout_s=20))[1])["working"]:
            pass
        assert now["state"] == "ended"
        fine, told = await ask("start_study", model="shipped", data=str(rows), out=str(study), epochs=4)
        assert (fine, told["kind"]) == (False, "StudyChanged")
        assert "--out" not in told["message"]
        fine, told = await ask("wait_for_study", study=str(study))
        assert (fine, told["kind"]) == (False, "StudyChanged")
        assert told["standing"]["best"] == now["best"], "what was there before is not lost"

    talk(conversation, monkeypatch, tmp_path)


def started(folder, *, printed: str, spec: bool) -> None:
    """A study whose process has ended after it had printed something."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder.mkdir()
    (folder / "agent.log").write_text('{"error": {"kind": "Older"}}\n' + printed)
    told = {"pid": ended.pid, "words": [], "began": time.time(), "log_from": len('{"error": {"kind": "Older"}}\n')}
    (folder / "agent.json").write_text(json.dumps(told))
    if spec:
        (folder / "study.json").write_text("{}")


def test_only_the_error_of_the_last_start_counts(tmp_path):
    started(tmp_path / "good", printed='a card\n{"best": null}\n', spec=True)
    assert failure_of(tmp_path / "good") is None
    assert not was_cut_off(tmp_path / "good")
    started(tmp_path / "bad", printed='words\n{"error": {"kind": "BadInput", "exit_code": 2}}\nan echo\n', spec=True)
    assert failure_of(tmp_path / "bad")["kind"] == "BadInput"
    started(tmp_path / "killed", printed="loading\n", spec=True)
    assert failure_of(tmp_path / "killed") is None
    assert was_cut_off(tmp_path / "killed"), "it is no study that has ended"
    started(tmp_path / "early", printed="out of luck\n", spec=False)
    assert "out of luck" in failure_of(tmp_path / "early")["message"]


def test_an_error_is_over_when_the_study_was_started_by_hand(tmp_path):
    folder = tmp_path / "s"
    started(folder, printed='{"error": {"kind": "BadInput"}}\n', spec=True)
    os.utime(folder / "agent.log", (time.time() - 10, time.time() - 10))
    assert failure_of(folder) is not None
    write_running(folder, command="finestep tune", budget=Budget())
    assert failure_of(folder) is None


def test_next_steps_are_tools_and_arguments():
    told = in_tools({"next_step": "`finestep report --help` lists what it takes", "exit_code": 2})
    assert "`study_result`" in told["next_step"]
    assert "--help" not in told["next_step"]
    assert (
        in_tools({"next_step": "leave it out, or use --method lora"})["next_step"]
        == "leave it out, or use `method` lora"
    )
    assert "`settings`" in in_tools({"message": "`--epochs` and the recipe (or `--set`) must agree"})["message"]
    assert "`study_status_of`" in in_tools({"next_step": "`finestep status FOLDER` shows what runs there"})["next_step"]
    assert in_tools({"place": "--set lora.foo=1"})["place"] == "`settings` lora.foo=1"
    assert in_tools({"place": "runs/a--out"})["place"] == "runs/a--out"
    assert in_tools({"next_step": "run finestep merge X"})["next_step"] == "run finestep merge X"


def test_every_argument_and_every_field_of_an_answer_is_described():
    from finestep.agents.server import server

    def bare(schema):
        own = [name for name, one in schema.get("properties", {}).items() if not one.get("description")]
        return own + [name for part in schema.get("$defs", {}).values() for name in bare(part)]

    tools = asyncio.run(server.list_tools())
    assert len(tools) > 10
    assert {tool.name: bare(tool.input_schema) + bare(tool.output_schema) for tool in tools} == {
        tool.name: [] for tool in tools
    }


def test_a_framework_in_any_case_and_a_log_by_its_trial(rows, monkeypatch, tmp_path):
    (tmp_path / "recipe.yaml").write_text("method: lora\nlearning_rate: 1.0e-3\n")
    trial = tmp_path / "trials" / "0003"
    trial.mkdir(parents=True)
    lines = [
        {"step": step, "loss": 3.0 - step / 20, "learning_rate": 1e-3, "grad_norm": 1.0, "clipped": False}
        | {"num_tokens": 100, "num_loss_tokens": 50, "elapsed_s": float(step)}
        for step in range(1, 31)
    ]
    (trial / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    async def conversation(client, ask):
        made = {"study": str(tmp_path), "output": str(tmp_path / "out"), "model": "shipped", "data": str(rows)}
        fine, told = await ask("export_recipe", framework="TRL", **made)
        assert fine, told
        fine, told = await ask("export_recipe", framework="trl", **made)
        assert not fine
        assert "--" not in told["next_step"]
        fine, told = await ask("export_recipe", framework="Trl", force=True, **made)
        assert fine, told
        fine, told = await ask("diagnose_log", study=str(tmp_path), trial=3)
        assert fine, told
        assert told["verdict"]
        fine, told = await ask("diagnose_log", study=str(tmp_path))
        assert not fine
        assert "`trial`" in told["message"]

    talk(conversation, monkeypatch, tmp_path)


@pytest.mark.long
def test_a_study_is_stopped_and_goes_on(rows, monkeypatch, tmp_path):
    study = tmp_path / "study"

    async def conversation(client, ask):
        long = {
            "model": "shipped",
            "data": str(rows),
            "out": str(study),
            "budget": 1,
            "settings": ["max_length=48", "num_epochs=30"],
        }
        await ask("start_study", **long)
        now = {"working": True, "under_way": []}
        while now["working"] and not any(one["step"] for one in now["under_way"]):
            await asyncio.sleep(0.5)
            _, now = await ask("study_status_of", study=str(study))
        _, answer = await ask("stop_study", study=str(study))
        assert answer == {"stopping": True}
        assert now["state"] == "running"
        assert 0 < now["spent"] < 1, "a trial under way counts by the steps that it has made"
        assert now["under_way"][0]["steps_planned"] > now["under_way"][0]["step"]
        while (now := (await ask("wait_for_study", study=str(study), timeout_s=3))[1])["working"]:
            pass
        assert now["best"] is None
        assert (now["state"], now["trials"]) == ("stopped", {"stopped (resumes)": 1})
        assert now["next_command"] == now["command"]
        assert f"go on with: {now['command']}" in (study / "agent.log").read_text()
        _, wish = await ask("extend_study", study=str(study), budget=1.5)
        _, now = await ask("study_status_of", study=str(study))
        assert now["budget"] == 1.5
        assert wish["start_again"] == now["next_command"]
        assert "--budget 1.5" in wish["start_again"]
        await ask("start_study", **long)
        while (now := (await ask("wait_for_study", study=str(study), timeout_s=20))[1])["working"]:
            pass
        assert now["trials"] == {"completed": 1}

    talk(conversation, monkeypatch, tmp_path)
