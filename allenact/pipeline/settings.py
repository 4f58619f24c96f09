"""TrainingSettings: the numbers that say how to train, given per pipeline, stage or stage component."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Self, TypeVar, overload

from allenact.errors import ExperimentConfigError, did_you_mean

T = TypeVar("T")


class Setting(Generic[T]):
    """One named value of `TrainingSettings`: checked when it is set, looked up in the defaults when not.

    Args:
        check: returns the value to store, or raises ValueError saying what is expected.
        default: the value where nobody set one.
    """

    name: str

    def __init__(self, check: Callable[[Any], T], default: T | None = None) -> None:
        self.check, self.default = check, default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, settings: None, owner: type) -> Self: ...
    @overload
    def __get__(self, settings: TrainingSettings, owner: type) -> T: ...
    def __get__(self, settings: TrainingSettings | None, owner: type) -> T | Self:
        if settings is None:
            return self
        value = settings.__dict__.get(self.name)
        if value is None and settings.defaults is not None:
            value = getattr(settings.defaults, self.name)
        return self.default if value is None else value  # type: ignore[return-value]  # None until set

    def __set__(self, settings: TrainingSettings, value: T | None) -> None:
        try:
            settings.__dict__[self.name] = None if value is None else self.check(value)
        except ValueError as error:
            raise ExperimentConfigError(
                f"the training setting {self.name} must be {error}.",
                given=f"{self.name}={value!r}",
                do=f"pass {error}, or leave it out to use the value of the pipeline stage or pipeline.",
            ) from None


def whole_number(minimum: float) -> Callable[[Any], int]:
    """Checks for a whole number of at least `minimum`; 1e6 is one."""

    def check(value: Any) -> int:
        if not is_number(value) or not float(value).is_integer() or value < minimum:
            bound = "" if minimum == -float("inf") else f" >= {minimum:g}"
            raise ValueError(f"a whole number{bound}")
        return int(value)

    return check


def fraction(value: Any) -> float:
    """Checks for a number from 0 to 1."""
    if not is_number(value) or not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1")
    return float(value)


def positive(value: Any) -> float:
    """Checks for a number above 0; infinity is one."""
    if not is_number(value) or not value > 0:
        raise ValueError("a number above 0")
    return float(value)


def positive_or_schedule(value: Any) -> float | Callable[[int], float]:
    """Checks for a number above 0, or a function that returns one."""
    if callable(value) and not isinstance(value, type):
        return value  # what it returns is checked when it is asked
    try:
        return positive(value)
    except ValueError:
        raise ValueError("a number above 0, or a schedule such as GeometricDecay(...)") from None


def flag(value: Any) -> bool:
    """Checks for True or False; 1 and 0 are taken for them."""
    if type(value).__name__ not in ("bool", "bool_") and value not in (0, 1):  # NumPy's is called bool or bool_
        raise ValueError("True or False")
    return bool(value)


def repeats(value: Any) -> int | tuple[int, ...]:
    """Checks for a whole number, or a sequence with one for each loss."""
    try:
        if isinstance(value, Sequence) and not isinstance(value, str):
            return tuple(whole_number(0)(item) for item in value)
        return whole_number(0)(value)
    except ValueError:
        raise ValueError("a whole number >= 0 (in a StageComponent also one for each loss)") from None


def one_of(*choices: str) -> Callable[[Any], str]:
    """Checks for one of some words."""

    def check(value: Any) -> str:
        if value not in choices:
            quoted = [f'"{choice}"' for choice in choices]
            raise ValueError(f"{', '.join(quoted[:-1])} or {quoted[-1]}")
        return str(value)

    return check


def is_number(value: Any) -> bool:
    """Says whether `value` is a number, of Python or NumPy; True and False are none."""
    return isinstance(value, numbers.Real) and type(value).__name__ not in ("bool", "bool_")


class TrainingSettings:
    """How to train. A value that is not set here is looked up in `defaults` each time it is read.

    A stage component asks its stage, a stage its pipeline. Since values are looked up when read, changing
    one on the pipeline later is seen by all of its stages.

    Args:
        **settings: any of the settings below; None leaves one unset.

    Attributes:
        num_mini_batch: groups that the samplers are split into on each pass over a rollout; 0: learn nothing.
        update_repeats: passes over a rollout. In a stage component also a sequence, one number for each loss.
        max_grad_norm: the 2-norm to which the whole gradient is clipped.
        num_steps: environment steps of each sampler in one rollout.
        gamma: discount per environment step.
        use_gae: generalised advantage estimates if True, discounted returns if False.
        gae_lambda: lambda of these estimates.
        advance_scene_rollout_period: rollouts after which all samplers are made to start a new task.
        save_interval: environment steps between checkpoints, summed over samplers and workers; None: no
            checkpoints, 0 or less: only at the end of a stage.
        metric_accumulate_interval: environment steps between training logs, summed over samplers and workers; 0: a
            log after every rollout.
        bootstrap_truncated: add the value of the last observation of an episode that a limit has cut. AllenAct
            treats a cut like a failure, so the default is False.
        mini_batches_over: "samplers" (whole sequences of some samplers, the default) or "steps" (rows drawn
            from the whole rollout; for models without memory).
        kl_target: keep the KL divergence between the policy that acted and the policy as it is now near this
            number (nats) by changing the learning rate; see `kl_control`. Or near what a schedule says, a function
            of the environment steps taken in the stage. None: the rate is left alone.
        kl_judged: how often that is looked at: after every "mini_batch" (the default), "pass" or "update".
        kl_stop: end the passes over a rollout before the first mini-batch on which that divergence is above this
            number (nats). None: all passes are made.

    Raises:
        ExperimentConfigError: for a name that is no setting, and for a value out of its range.
    """

    num_mini_batch = Setting(whole_number(0))
    update_repeats = Setting(repeats)
    max_grad_norm = Setting(positive)
    num_steps = Setting(whole_number(1))
    gamma = Setting(fraction)
    use_gae = Setting(flag)
    gae_lambda = Setting(fraction)
    advance_scene_rollout_period = Setting(whole_number(1))
    save_interval = Setting(whole_number(-float("inf")))
    metric_accumulate_interval = Setting(whole_number(0))
    bootstrap_truncated = Setting(flag, default=False)
    mini_batches_over = Setting(one_of("samplers", "steps"), default="samplers")
    kl_target: Setting[float | Callable[[int], float] | None] = Setting(positive_or_schedule)
    kl_judged = Setting(one_of("mini_batch", "pass", "update"), default="mini_batch")
    kl_stop: Setting[float | None] = Setting(positive)

    defaults: TrainingSettings | None = None

    def __init__(self, **settings: Any) -> None:
        for name, value in settings.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in SETTING_NAMES:
            raise unknown_setting(name, SETTING_NAMES)
        super().__setattr__(name, value)

    def set_defaults(self, settings: TrainingSettings) -> None:
        """Sets where values that are not set here are looked up. May be called once.

        Raises:
            ExperimentConfigError: the object has defaults already, because two stages share it.
        """
        if self.defaults is not None:
            raise ExperimentConfigError(
                "one TrainingSettings object is used in two places.",
                given=repr(self),
                do="give each stage and stage component a TrainingSettings object of its own.",
            )
        self.__dict__["defaults"] = settings

    def keys(self) -> list[str]:
        """Returns the names of all settings, set or not."""
        return list(SETTING_NAMES)

    def has_key(self, key: str) -> bool:
        """Whether there is a setting of that name, set or not."""
        return key in SETTING_NAMES

    def own(self) -> dict[str, Any]:
        """Returns what was set here, without defaults."""
        return {name: self.__dict__[name] for name in SETTING_NAMES if self.__dict__.get(name) is not None}

    def __repr__(self) -> str:
        return f"TrainingSettings({', '.join(f'{name}={value!r}' for name, value in self.own().items())})"


SETTING_NAMES: tuple[str, ...] = tuple(
    name for name, value in vars(TrainingSettings).items() if isinstance(value, Setting)
)


def unknown_setting(name: str, candidates: Iterable[str]) -> ExperimentConfigError:
    """Returns the error for a keyword that is neither a training setting nor anything else known."""
    candidates = list(candidates)
    return ExperimentConfigError(
        f'there is no training setting called "{name}".',
        given=f"{name}=...",
        do=did_you_mean(name, candidates) or f"use one of {', '.join(candidates)}.",
    )


def settings_from(training_settings: TrainingSettings | None, loose: dict[str, Any], owner: type) -> TrainingSettings:
    """Returns the settings given to a pipeline or stage, either as an object or as loose keywords.

    Args:
        training_settings: the object, if one was given.
        loose: the keywords that are no parameters of `owner`.
        owner: the class they were given to.

    Raises:
        ExperimentConfigError: both were given, or a keyword is unknown.
    """
    for name in loose:
        if name == "offpolicy_component":  # of AllenAct 0.4 and earlier
            raise ExperimentConfigError(
                "off-policy data come from a storage, no longer from an OffPolicyPipelineComponent.",
                given=f"{owner.__name__}(offpolicy_component=...)",
                do="add a storage to named_storages of the pipeline and StageComponent(uuid=..., storage_uuid=..., "
                "loss_names=...) to stage_components; MiniGridExpertTrajectoryStorage is such a storage.",
            )
        if name not in SETTING_NAMES:
            raise unknown_setting(name, (*SETTING_NAMES, *inspect.signature(owner).parameters))
    if training_settings is not None and loose:
        raise ExperimentConfigError(
            f"a {owner.__name__} was given training settings twice.",
            given=f"training_settings={training_settings!r} and {', '.join(loose)}",
            do="pass either training_settings or loose keywords.",
        )
    return TrainingSettings(**loose) if training_settings is None else training_settings
