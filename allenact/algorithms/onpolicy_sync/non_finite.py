"""Who is to blame for a NaN: a sensor, or the model itself."""

from __future__ import annotations

from typing import Any

import torch

from allenact.errors import AllenActError, NonFiniteError, RunError


def explain_non_finite(observations: dict[str, Any], model: torch.nn.Module, symptom: str) -> AllenActError:
    """Returns the error that names where numbers stopped being finite.

    Args:
        observations: what the model saw, leaves [T, N, O...].
        model: what it went through.
        symptom: what was noticed.
    """
    for uuid, value in observations.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            continue
        bad = (~torch.isfinite(value)).flatten(2).nonzero()  # [k, 3]: row, sampler, entry
        if len(bad):
            row, sampler = int(bad[0, 0]), int(bad[0, 1])
            entries = [int(entry) for r, s, entry in bad.tolist() if (r, s) == (row, sampler)][:5]
            return NonFiniteError(
                f'sensor "{uuid}" returned NaN or infinity.',
                f"sampler {sampler} of {value.shape[1]}, row {row} of {value.shape[0]}; entries {entries} of"
                f" {value[0, 0].numel()}",
                "look at what the environment's step() returns.",
            )
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return NonFiniteError(
                f'the model\'s parameter "{name}" holds NaN or infinity.',
                symptom.splitlines()[0],
                "lower the learning rate or clip the gradient; the last checkpoint holds finite weights.",
            )
    return RunError("the model failed.", symptom, "look at its forward(): observations and parameters are finite.")
