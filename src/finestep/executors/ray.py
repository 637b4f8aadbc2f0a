"""Trials on the nodes of a Ray cluster: the executor of one machine, over a process that drives the cluster (`cluster/driver.py`).

A study sees no difference: the losses are those of one machine, and all files are in the study's folder.
"""

from __future__ import annotations

from pathlib import Path

from finestep.executors.local import LocalExecutor
from finestep.protocol import SessionRequest

DRIVER = "finestep.cluster.driver"


class RayExecutor(LocalExecutor):
    """The workers of a cluster.

    Args:
        session: what each worker loads; its `cluster` says where.
        folder: where the study keeps its files; no node needs to see it.
    """

    def __init__(self, session: SessionRequest, *, folder: Path):
        super().__init__(session, folder=folder, module=DRIVER, hires=False)
