"""finestep finds the learning rate and the batch size of a fine-tune, trains the winner, and explains the answer.

Names are loaded when they are used: importing this package loads neither torch nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

_WHERE = {
    "Recipe": "finestep.recipe",
    "SearchSpace": "finestep.search.space",
    "Study": "finestep.api.study",
    "Estimate": "finestep.estimate",
    "Trial": "finestep.trial",
    "FinestepError": "finestep.errors",
    "FinestepCallback": "finestep.integrations.transformers",
    "FinestepSampler": "finestep.integrations.optuna",
    "ask_tell": "finestep.flows.ask_tell",
    "diagnose": "finestep.api.logs",
    "open_study": "finestep.api.study",
    "read_recipe": "finestep.store.recipe_file",
    "recommend": "finestep.flows.recommend",
    "train": "finestep.api.tuning",
    "tune": "finestep.api.tuning",
    "write_recipe": "finestep.store.recipe_file",
}
__all__ = ["__version__", *_WHERE]


class CallableRoom(ModuleType):
    """A room that has the name of a function: once it is imported it stands in the function's place, so it can be called too."""

    def __call__(self, *arguments: object, **options: object) -> object:
        name = self.__name__.rpartition(".")[2]
        return getattr(import_module(_WHERE[name]), name)(*arguments, **options)


def __getattr__(name: str) -> object:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'finestep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
