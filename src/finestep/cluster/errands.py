"""Calls to an actor whose answer carries nothing: each is looked after until it has arrived, and made again where it may be lost.

A network that fails for half a minute can take a call or its answer with it, and Ray then waits for ever. Who is called must bear
the same call twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from finestep.cluster.places import Cluster, Reference

LATE_S, AGAIN_S = 20.0, 5.0
"""Without an answer a call is made again after so long; after one that could not be made, sooner."""


@dataclass(eq=False)
class _Errand:
    send: Callable[[], Reference]
    reference: Reference
    sent: float


@dataclass
class Errands:
    """Those of one actor."""

    _open: list[_Errand] = field(default_factory=list)

    def do(self, send: Callable[[], Reference]) -> None:
        """Make a call that nobody waits for."""
        self._open.append(_Errand(send, send(), time.monotonic()))

    def look(self, cluster: Cluster) -> BaseException | None:
        """Make again what may be lost; the error of a call that no repetition helps, e.g. because the actor is gone."""
        for errand in list(self._open):
            waited = time.monotonic() - errand.sent
            if cluster.ray.wait([errand.reference], num_returns=1, timeout=0)[0]:
                try:
                    cluster.ray.get(errand.reference)
                    self._open.remove(errand)
                    continue
                except cluster.ray.exceptions.RayError as error:
                    hopeless: BaseException = error
                    if not cluster.is_blip(hopeless):
                        return hopeless
                    is_due = waited > AGAIN_S
            else:
                is_due = waited > LATE_S
            if is_due:
                errand.reference, errand.sent = errand.send(), time.monotonic()
        return None
