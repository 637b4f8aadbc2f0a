"""Where a cluster is, as a user writes it."""

from __future__ import annotations

from finestep.errors import BadInput
from finestep.protocol import ClusterRequest
from finestep.survey.installed import check_installed

SCHEME, AUTO = "ray://", "auto"


def parse_cluster(text: str, *, workers: int | None) -> ClusterRequest:
    """The cluster of `--on ray://auto` or `--on ray://HOST:PORT`.

    Raises:
        BadInput: it is neither.
        MissingDependency: Ray is not installed.

    >>> parse_cluster("local", workers=None)
    Traceback (most recent call last):
    ...
    finestep.errors.BadInput: `--on` takes ray://auto or ray://HOST:PORT; got 'local'; e.g. ray://10.0.0.1:6379
    """
    address = text.removeprefix(SCHEME)
    host, _, port = address.rpartition(":")
    if not text.startswith(SCHEME) or not (address == AUTO or (host and port.isdecimal())):
        raise BadInput("`--on` takes ray://auto or ray://HOST:PORT", value=text, next_step="e.g. ray://10.0.0.1:6379")
    check_installed(("ray",), needed_for="`--on`", extra="ray")
    return ClusterRequest(address=address, workers=workers)
