"""Doing something on all devices of a trial, with one answer for all: it came out, memory was too short, or it raised."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from finestep.train.devices import AnotherRaised, Devices, Found, GroupLost
from finestep.train.faults import is_device_lost, logged_cause
from finestep.train.lane import Lane
from finestep.train.memory import unless_out_of_memory

Result = TypeVar("Result")


def agreed(devices: Devices, compute: Callable[[list[Lane]], Result], lanes: list[Lane]) -> Result | None:
    """What `compute` gives; None where memory was too short here or on another device. It raises on all devices or on none.

    Raises:
        GroupLost: the devices can come to no agreement, because the others wait in the middle of the same pass.
    """
    error = None
    try:
        found = unless_out_of_memory(compute, lanes)
    except Exception as raised:
        if devices.world == 1 or is_device_lost(raised):
            raise
        if devices.is_sharded:  # the others are in the middle of the same pass, and wait for this device
            raise GroupLost(f"a pass over a base in parts failed: {logged_cause(raised)}") from raised
        found, error = None, raised
    if found is None and error is None and devices.is_sharded:
        raise GroupLost("a pass over a base in parts ran out of memory; set a smaller micro_batch_size")
    mine = Found.RAISED if error else Found.SHORT if found is None else Found.FINE
    worst = devices.meet(mine)
    if worst is Found.RAISED:
        raise error or AnotherRaised()
    return None if worst is Found.SHORT else found
