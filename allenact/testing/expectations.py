"""How the contract checks say that a promise is broken."""

from __future__ import annotations

from typing import Any

from allenact.errors import AllenActError


class ContractError(AllenActError, AssertionError):
    """A task, sampler, sensor or storage does not do what the framework relies on."""


def expect(condition: Any, what: str, given: str = "", do: str = "") -> None:
    """Raises a `ContractError` that states the promise `what` unless the condition holds."""
    if not condition:
        raise ContractError(what, given, do)
