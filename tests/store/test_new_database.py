"""The database of a new study is the one that Optuna makes, and Optuna reads it."""

from __future__ import annotations

import contextlib
import sqlite3

import optuna

from finestep.store.new_database import new_storage


def _kept(file):
    with contextlib.closing(sqlite3.connect(file)) as connection:
        tables = sorted(map(str, connection.execute("select type, name, tbl_name, sql from sqlite_master")))
        versions = [
            connection.execute(f"select * from {name}").fetchall() for name in ("alembic_version", "version_info")
        ]
    return tables, versions


def test_a_new_file_has_the_tables_and_the_versions_that_optuna_gives_it(tmp_path):
    optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}")
    new_storage(tmp_path / "ours.db")
    assert _kept(tmp_path / "ours.db") == _kept(tmp_path / "optuna.db")


def test_optuna_reads_what_was_kept_in_it(tmp_path):
    study = optuna.create_study(study_name="s", storage=new_storage(tmp_path / "ours.db"))
    study.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={"kept": 1}))
    again = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 'ours.db'}")
    assert [(trial.value, trial.user_attrs) for trial in again.trials] == [(0.5, {"kept": 1})]
