"""Finds where a NaN or an infinity comes from: a sensor, a reward, or the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from allenact.algorithms.onpolicy_sync.storage.observation_tree import FLATTEN_SEPARATOR, flat_leaves
from allenact.errors import AllenActError, NonFiniteError


def explain_non_finite(observations: dict[str, Any], model: torch.nn.Module, symptom: str) -> AllenActError | None:
    """Returns the error that names where numbers stopped being finite; None if observations and parameters are.

    Args:
        observations: what the model saw, leaves [T, N, O...].
        model: what it went through.
        symptom: what was noticed.
    """
    blamed = _bad_observation(observations)
    if blamed is not None:
        return blamed
    return _bad_tensor(model, symptom.splitlines()[0])


def _bad_observation(observations: Mapping[str, Any]) -> NonFiniteError | None:
    """Returns the error that names the first NaN or infinity in leaves [T, N, O...], None if there is none."""
    for uuid, value in flat_leaves(observations):
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or torch.isfinite(value).all():
            continue
        bad = (~torch.isfinite(value)).flatten(2).nonzero()  # [k, 3]: step, sampler, entry
        step, sampler = int(bad[0, 0]), int(bad[0, 1])
        entries = [int(entry) for t, s, entry in bad.tolist() if (t, s) == (step, sampler)][:5]
        return NonFiniteError(
            f'sensor "{uuid.replace(FLATTEN_SEPARATOR, "/")}" returned NaN or infinity.',
            f"sampler {sampler} of {value.shape[1]}, step {step} of {value.shape[0]}; entries {entries} of"
            f" {value[0, 0].numel()}",
            "look at what the environment's step() returns.",
        )
    return None


def require_finite_observations(observations: Mapping[str, Any]) -> None:
    """Checks the observations of a rollout, leaves [T, N, O...]: a model may hide an infinity, by clipping for example.

    Raises:
        NonFiniteError: an entry is NaN or infinite.
    """
    blamed = _bad_observation(observations)
    if blamed is not None:
        raise blamed


def require_finite_rewards(
    rewards: np.ndarray, first_step: int, first_sampler: int = 0, num_samplers: int | None = None
) -> None:
    """Checks rewards of a rollout.

    Args:
        rewards: [K, n].
        first_step: index of the first of the K steps.
        first_sampler: the first of the n samplers.
        num_samplers: N, of all samplers; None: n.

    Raises:
        NonFiniteError: one is NaN or infinite.
    """
    finite = np.isfinite(rewards)  # [K, N]
    if not finite.all():
        step = int(np.argmin(finite.all(axis=1)))  # the first that is not
        samplers = np.flatnonzero(~finite[step])[:5]
        raise NonFiniteError(
            "a task returned a reward that is NaN or infinite.",
            f"samplers {(first_sampler + samplers).tolist()} of {num_samplers or rewards.shape[1]},"
            f" step {first_step + step} of the rollout:"
            f" {rewards[step, samplers].tolist()}",
            "look at what the task's step() returns; rewards are float32, at most 3.4e38.",
        )


def require_finite_model(model: torch.nn.Module, when: str, copies: Mapping[str, torch.Tensor] | None = None) -> None:
    """Checks a model that is about to be saved.

    Args:
        model: what to check.
        when: told in the error.
        copies: of its state dict, if they are saved in its place.

    Raises:
        NonFiniteError: a parameter is NaN or infinite, or a buffer NaN.
    """
    blamed = _bad_tensor(model, when, copies)
    if blamed is not None:
        raise blamed


def _bad_tensor(
    model: torch.nn.Module, given: str, copies: Mapping[str, torch.Tensor] | None = None
) -> NonFiniteError | None:
    saved = copies or {}
    for name, parameter in model.named_parameters():
        if not torch.isfinite(saved.get(name, parameter)).all():
            return NonFiniteError(
                f'the model\'s parameter "{name}" holds NaN or infinity.',
                given,
                "lower the learning rate or clip the gradient; the last checkpoint holds finite weights.",
            )
    for name, buffer in model.named_buffers():
        if torch.isnan(saved.get(name, buffer)).any():  # infinities may be meant, in a mask for example
            return NonFiniteError(
                f'the model\'s buffer "{name}" holds NaN.',
                given,
                "look at what the model computes it from; the last checkpoint holds none.",
            )
    return None
