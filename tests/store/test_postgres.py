"""PostgreSQL as the store, with a server that the tests start and break themselves; skipped where none is installed."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from finestep.errors import BadInput, StudyBusy
from finestep.store import database
from tests.flows.studies import FINGERPRINT, open_store, tune

BIN = next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)), "")
PASSWORD = "s3cretPassw0rd"

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(not BIN and shutil.which("initdb") is None, reason="no PostgreSQL is installed"),
]


class Server:
    """A server of its own, on a free port."""

    def __init__(self, folder: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.data, self._as = folder / "data", {}
        folder.mkdir(parents=True)
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            owner = pwd.getpwnam("postgres")
            self._as = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if self._as:
            os.chown(secret, self._as["user"], self._as["group"])
        self._call("initdb", "-D", self.data, "-U", "me", "-A", "scram-sha-256", "--pwfile", secret, "--no-sync")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, *, password: str = PASSWORD, name: str = "postgres", port: int | None = None) -> str:
        return f"postgresql://me:{password}@127.0.0.1:{port or self.port}/{name}"

    def start(self) -> None:
        log = (self.data / "server.log").open("ab")
        options = ["-D", self.data, "-p", str(self.port), "-k", "", "-c", "listen_addresses=127.0.0.1", "-F"]
        self.process = subprocess.Popen(
            [self._path("postgres"), *map(str, options)], stdout=log, stderr=log, cwd="/", **self._as
        )
        for _ in range(200):
            if (
                subprocess.run(
                    [self._path("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
                ).returncode
                == 0
            ):
                return
            time.sleep(0.1)
        raise AssertionError((self.data / "server.log").read_text())

    def stop(self, how: int = signal.SIGQUIT) -> None:
        if self.process is not None:
            if how == signal.SIGKILL:
                children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
                for child in [self.process.pid, *map(int, children)]:
                    with contextlib.suppress(ProcessLookupError):  # a child ends by itself when the others are killed
                        os.kill(child, signal.SIGKILL)
            else:
                self.process.send_signal(how)
            self.process.wait()
            self.process = None
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def make(self, name: str) -> str:
        import sqlalchemy

        engine = sqlalchemy.create_engine(
            self.url().replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
        )
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"create database {name}"))
        engine.dispose()
        return self.url(name=name)

    def _path(self, program: str) -> str:
        return f"{BIN}/{program}" if BIN else str(shutil.which(program))

    def _call(self, program: str, *arguments: object) -> None:
        subprocess.run(
            [self._path(program), *map(str, arguments)], check=True, capture_output=True, cwd="/", **self._as
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("psycopg")
    folder = Path("/tmp") / f"finestep-postgres-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    running = Server(folder)
    yield running
    running.stop()
    shutil.rmtree(folder, ignore_errors=True)


def board(store):
    return [(t.number, t.state, t.recipe.learning_rate, t.outcome and t.outcome.eval_loss) for t in store.trials()]


def text_below(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGKILL])
def test_a_server_that_goes_away_in_a_run_costs_nothing(server, tmp_path, how):
    quiet = open_store(tmp_path / "quiet")
    tune(quiet)
    store = open_store(tmp_path / "study", storage_url=server.make(f"away{int(how)}"))
    stopped = []

    def break_it(recipe, fidelity):
        from tests.flows.studies import basin

        if len(stopped) == 0 and len(store.trials()) == 3:
            server.stop(how)
            stopped.append(threading.Timer(3.0, server.start))
            stopped[0].start()
        return basin(recipe, fidelity)

    tune(store, recording=break_it)
    stopped[0].join()
    assert board(store) == board(quiet)
    store.close()
    again = open_store(tmp_path / "study", storage_url=server.url(name=f"away{int(how)}"))
    assert board(again) == board(quiet)
    again.close()
    assert PASSWORD not in text_below(tmp_path / "study")


def test_a_server_that_stays_away_pauses_the_study(server, tmp_path, monkeypatch):
    from finestep.errors import EnvironmentFault

    store = open_store(tmp_path / "study", storage_url=server.make("gone"))
    monkeypatch.setattr(database, "PATIENCE_S", 1.0)
    server.stop()
    try:
        with pytest.raises(EnvironmentFault, match="storage was not there") as fault:
            tune(store)
    finally:
        server.start()
    assert fault.value.exit_code == 75
    assert PASSWORD not in str(fault.value)


def test_one_controller_at_a_time_and_one_folder_a_study(server, tmp_path):
    url = server.make("shared")
    store = open_store(tmp_path / "one", storage_url=url)
    began = time.monotonic()
    with pytest.raises(StudyBusy):
        open_store(tmp_path / "two", storage_url=url)
    assert time.monotonic() - began < 30  # refused, not waited for
    other = open_store(tmp_path / "three", storage_url=url, fingerprint={**FINGERPRINT, "data_sha256": "another"})
    assert other.trials() == []
    other.close()
    store.close()
    with pytest.raises(BadInput, match="another folder keeps it"):
        open_store(tmp_path / "two", storage_url=url)
    open_store(tmp_path / "one", storage_url=url).close()


def test_two_first_starts_on_an_empty_database(server, tmp_path):
    url = server.make("empty")
    code = (
        "import sys; from pathlib import Path; from tests.flows.studies import open_store\n"
        "open_store(Path(sys.argv[1]), storage_url=sys.argv[2], fingerprint={'data_sha256': sys.argv[1]}).close()"
    )
    starts = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / name), url], stderr=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    for start in starts:
        _, said = start.communicate(timeout=120)
        assert start.returncode == 0, said


def test_no_password_in_what_is_said_or_written(server, tmp_path):
    from finestep.plain_text import without_passwords

    addresses = {
        "good": server.make("good"),
        "wrong password": server.url(password=PASSWORD + "X"),
        "no such database": server.url(name="nowhere"),
        "no server": server.url(port=1),
        "no such host": f"postgresql://me:{PASSWORD}@host.invalid/x",
        "driver that is not there": f"postgresql+pg8000://me:{PASSWORD}@127.0.0.1/x",
        "unknown database": f"oracle://me:{PASSWORD}@127.0.0.1/x",
        "bad port": f"postgresql://me:{PASSWORD}@127.0.0.1:port/x",
        "no address": f"me:{PASSWORD}@127.0.0.1",
        "in the query": f"postgresql://127.0.0.1:{server.port}/x?user=me&password={PASSWORD}",
        "an option that is not there": server.url() + "?nonsense=1",
        "encryption that the server has not": server.url() + "?sslmode=require",
        "with a colon": f"postgresql://me:a:{PASSWORD}@127.0.0.1:{server.port}/x",
    }
    assert len(addresses) == 1 + 12
    for name, url in addresses.items():
        folder = tmp_path / name.replace(" ", "-")
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "finestep",
                "tune",
                "--command",
                "echo loss 1{learning_rate}",
                "--rows",
                "64",
                "--json",
                "--result",
                "eval_loss=loss ([0-9.]+)",
                "--budget",
                "1",
                "--strategy",
                "random",
                "--out",
                str(folder),
                "--storage",
                url,
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert PASSWORD not in done.stdout + done.stderr + text_below(tmp_path), (name, done.stderr)
        assert "Traceback" not in done.stderr, (name, done.stderr)
        assert done.returncode == (0 if name == "good" else 2), (name, done.returncode, done.stderr)
        told = json.loads(done.stdout.splitlines()[-1])
        assert ("error" in told) == (name != "good")
    assert without_passwords(addresses["good"]).count("me@") == 1
