"""A base in parts, one a device (FSDP2's `fully_shard`): how it is cut, and how whole tensors become parts and whole again.

Gradients are summed and never averaged. Adapters are put in afterwards and belong to no part: every device holds all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from finestep.errors import BadInput
from finestep.train.checkpointing import checkpointable_layers


def shard(base: torch.nn.Module, device: torch.device) -> None:
    """Cut a model over all devices of the group, layer by layer, in place.

    Raises:
        BadInput: it has no layers that are known.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.distributed_c10d import get_world_size
    from torch.distributed.fsdp import FSDPModule, fully_shard

    layers = checkpointable_layers(base)
    if not layers:
        raise BadInput(
            "a model is cut over devices layer by layer, and this one has no layers that transformers names",
            value=type(base).__name__,
            next_step="leave out `--sharding`, so that each device holds the whole model",
        )
    mesh = init_device_mesh(device.type, (get_world_size(),))
    for module in [*layers, base]:
        fully_shard(module, mesh=mesh)
    for module in base.modules():
        if isinstance(module, FSDPModule):
            # A sum, not a mean. With a factor of its own gloo fails, which knows plain sums only.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def forget_gathered(base: torch.nn.Module) -> None:
    """Let the next pass see parameters that were written: what a pass without gradients has gathered may still be held."""
    for module in base.modules():
        if callable(reshard := getattr(module, "reshard", None)):
            reshard()


def is_part(value: torch.Tensor) -> bool:
    """True for a tensor of which each device holds a part."""
    return hasattr(value, "device_mesh")


def part_of(value: torch.Tensor) -> torch.Tensor:
    """What this device holds of a tensor; an ordinary tensor itself."""
    return value.to_local() if is_part(value) else value  # type: ignore[attr-defined]


def fitted(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`value` where and as `like` is: on its device, in its precision, in parts where it is in parts."""
    if is_part(like) and not is_part(value):
        from torch.distributed.tensor import distribute_tensor

        # Every device has read the same file: each takes its part of it, and nothing is sent.
        value = distribute_tensor(
            value.to(like.device, like.dtype),
            like.device_mesh,  # type: ignore[attr-defined]
            like.placements,  # type: ignore[attr-defined]
            src_data_rank=None,
        )
    return value.to(like.device, like.dtype)


def gathered(value: torch.Tensor, *, keep: bool) -> torch.Tensor:
    """A whole tensor in host memory, for the device that keeps it; an ordinary tensor itself."""
    if not is_part(value):
        return value
    mesh = value.device_mesh  # type: ignore[attr-defined]
    whole: torch.Tensor = value.detach().to(mesh.device_type).full_tensor()  # type: ignore[attr-defined]
    return whole.cpu() if keep else whole[:0]


def tied(named: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Names of tensors that are another one's too: name -> the name under which it comes first."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(part_of(value).data_ptr(), name)
        for name, value in named.items()
        if part_of(value).numel()
    }
