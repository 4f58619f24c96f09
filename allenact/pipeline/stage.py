"""PipelineStage: one part of the training, with its losses, its length and how far it has come."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from allenact.base_abstractions.misc import Memory
from allenact.errors import ExperimentConfigError, did_you_mean
from allenact.pipeline.settings import SETTING_NAMES, TrainingSettings, is_number, settings_from

if TYPE_CHECKING:
    from allenact.utils.metrics import ScalarMeanTracker

COMPONENT_SETTINGS = (
    "num_mini_batch",
    "update_repeats",
    "max_grad_norm",
    "mini_batches_over",
    "kl_target",
    "kl_judged",
    "kl_stop",
)


class EarlyStoppingCriterion(abc.ABC):
    """Decides whether a stage ends before its `max_stage_steps`."""

    @abc.abstractmethod
    def __call__(self, stage_steps: int, total_steps: int, training_metrics: ScalarMeanTracker) -> bool:
        """Whether the stage should end now.

        Args:
            stage_steps: environment steps taken in this stage.
            total_steps: environment steps taken in all stages.
            training_metrics: means of the metrics of the episodes that ended since the previous call.
        """


class NeverEarlyStoppingCriterion(EarlyStoppingCriterion):
    """Lets every stage run to its end."""

    def __call__(self, stage_steps: int, total_steps: int, training_metrics: ScalarMeanTracker) -> bool:
        """Returns False."""
        return False


class StageComponent:
    """Which losses of a stage are computed on the data of which storage.

    Args:
        uuid: name of the component; part of the tags in TensorBoard.
        storage_uuid: name of the storage in the pipeline. Two components of a stage cannot share one.
        loss_names: losses to compute on it, among those of the stage.
        training_settings: overrides those of the stage; only num_mini_batch, update_repeats, max_grad_norm,
            mini_batches_over and the three about the KL divergence.

    Raises:
        ExperimentConfigError: a setting is given that belongs to the stage or the pipeline.
    """

    def __init__(
        self,
        *,
        uuid: str,
        storage_uuid: str,
        loss_names: Sequence[str],
        training_settings: TrainingSettings | None = None,
    ) -> None:
        self.uuid = uuid
        self.storage_uuid = storage_uuid
        self.loss_names = list(loss_names)
        self.training_settings = TrainingSettings() if training_settings is None else training_settings
        misplaced = [name for name in self.training_settings.own() if name not in COMPONENT_SETTINGS]
        if misplaced:
            raise ExperimentConfigError(
                f'the stage component "{uuid}" cannot have settings of its own for {", ".join(misplaced)}.',
                given=repr(self.training_settings),
                do=f"set them on the pipeline stage; a component can set {', '.join(COMPONENT_SETTINGS)}.",
            )

    def __repr__(self) -> str:
        return f"StageComponent(uuid={self.uuid!r}, storage_uuid={self.storage_uuid!r}, losses={self.loss_names})"


class PipelineStage:
    """One part of the training: which losses, for how long, with which settings; and how far it has come.

    Args:
        max_stage_steps: environment steps, summed over samplers and workers, after which the stage ends at
            the end of a rollout; or a function without arguments that returns them.
        loss_names: names of losses of the pipeline.
        loss_weights: factor of each loss in the total (not in what is logged); default 1.
        teacher_forcing: steps taken in this stage -> probability of taking the expert's action.
        stage_components: which losses learn from which storage; default: all from the rollout storage.
        early_stopping_criterion: ends the stage early; default never.
        training_settings: settings of this stage. Not together with loose keywords.
        callback_to_change_engine_attributes: `{attribute: {"func": f, "args": {...}}}`: when the stage
            begins, `engine.attribute = f(engine, **args)`.
        **training_settings_kwargs: the same settings as loose keywords, `num_steps=128`.

    Attributes:
        steps_taken_in_stage: environment steps, summed over samplers and workers.
        rollout_count: rollouts collected in this stage.
        early_stopping_criterion_met: whether the stage was ended early.
        storage_uuid_to_steps_taken_in_stage: storage uuid -> rows of experience it gained in this stage.
        stage_component_uuid_to_stream_memory: component uuid -> recurrent state of streamed data.

    Raises:
        ExperimentConfigError: settings that are unknown, out of range or given twice; components that clash.
    """

    def __init__(
        self,
        *,
        max_stage_steps: int | Callable[[], int],
        loss_names: Sequence[str],
        loss_weights: Sequence[float] | None = None,
        teacher_forcing: Callable[[int], float] | None = None,
        stage_components: Sequence[StageComponent] | None = None,
        early_stopping_criterion: EarlyStoppingCriterion | None = None,
        training_settings: TrainingSettings | None = None,
        callback_to_change_engine_attributes: Mapping[str, Mapping[str, Any]] | None = None,
        **training_settings_kwargs: Any,
    ) -> None:
        if not callable(max_stage_steps) and not is_number(max_stage_steps):
            raise ExperimentConfigError(
                "the length of a pipeline stage is a number of environment steps.",
                given=f"max_stage_steps={max_stage_steps!r}",
                do="use a whole number, or a function without arguments that returns one.",
            )
        self.max_stage_steps = max_stage_steps
        self.loss_names = list(loss_names)
        self.loss_weights = [1.0] * len(self.loss_names) if loss_weights is None else list(loss_weights)
        self.teacher_forcing = teacher_forcing
        self.early_stopping_criterion = early_stopping_criterion or NeverEarlyStoppingCriterion()
        self.training_settings = settings_from(training_settings, training_settings_kwargs, PipelineStage)
        self.callback_to_change_engine_attributes = dict(callback_to_change_engine_attributes or {})
        self._check_losses()

        self.steps_taken_in_stage = 0
        self.rollout_count = 0
        self.early_stopping_criterion_met = False
        self.storage_uuid_to_steps_taken_in_stage: dict[str, int] = {}
        self.stage_component_uuid_to_stream_memory: dict[str, Memory] = {}
        self.uuid_to_stage_component: dict[str, StageComponent] = {}
        for component in stage_components or ():
            self.add_stage_component(component)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in SETTING_NAMES:
            raise ExperimentConfigError(
                f"{name} is a training setting, not an attribute of the stage.",
                given=f"stage.{name} = {value!r}",
                do=f"write stage.training_settings.{name} = {value!r}.",
            )
        super().__setattr__(name, value)

    def _check_losses(self) -> None:
        if len(self.loss_weights) != len(self.loss_names) or len(set(self.loss_names)) < len(self.loss_names):
            raise ExperimentConfigError(
                "a pipeline stage needs one weight for each loss, and each loss once.",
                given=f"loss_names={self.loss_names}, loss_weights={self.loss_weights}",
                do="make the two lists equally long, without repeating a loss.",
            )
        if not isinstance(self.training_settings.update_repeats, int | None):
            raise ExperimentConfigError(
                "one number of update repeats for each loss can only be given in a StageComponent.",
                given=f"update_repeats={self.training_settings.update_repeats} in a PipelineStage",
                do="use one whole number, or stage_components=[StageComponent(...)].",
            )

    @property
    def uuid_to_loss_weight(self) -> dict[str, float]:
        """Loss name -> its weight in the total loss."""
        return dict(zip(self.loss_names, self.loss_weights, strict=True))

    @property
    def stage_components(self) -> tuple[StageComponent, ...]:
        """The components in order of declaration."""
        return tuple(self.uuid_to_stage_component.values())

    @property
    def is_complete(self) -> bool:
        """Whether the stage has been ended early or has taken its steps."""
        limit = self.max_stage_steps() if callable(self.max_stage_steps) else self.max_stage_steps
        return self.early_stopping_criterion_met or self.steps_taken_in_stage >= limit

    def add_stage_component(self, component: StageComponent) -> None:
        """Adds a component, which from now on takes the settings it does not have from this stage.

        Raises:
            ExperimentConfigError: its name or storage is taken, or it names a loss that the stage lacks.
        """
        if component.uuid in self.uuid_to_stage_component:
            raise ExperimentConfigError(
                "two components of a pipeline stage have the same name.",
                given=f'uuid="{component.uuid}" twice',
                do="give each component a uuid of its own.",
            )
        if component.storage_uuid in (other.storage_uuid for other in self.stage_components):
            raise ExperimentConfigError(
                "two components of a pipeline stage use the same storage.",
                given=f'storage_uuid="{component.storage_uuid}" twice',
                do="put all losses on one storage into one component.",
            )
        for name in component.loss_names:
            if name not in self.loss_names:
                raise ExperimentConfigError(
                    f'the component "{component.uuid}" names a loss that its stage does not have: "{name}".',
                    given=f"loss_names={component.loss_names}, in the stage {self.loss_names}",
                    do=did_you_mean(name, self.loss_names) or "add it to the loss_names of the stage.",
                )
        component.training_settings.set_defaults(self.training_settings)
        self.uuid_to_stage_component[component.uuid] = component
        self.stage_component_uuid_to_stream_memory[component.uuid] = Memory()

    def change_engine_attributes(self, engine: Any) -> None:
        """Sets the engine's attributes as `callback_to_change_engine_attributes` says.

        Raises:
            ExperimentConfigError: the engine has no attribute of such a name.
        """
        for name, change in self.callback_to_change_engine_attributes.items():
            if not hasattr(engine, name):
                raise ExperimentConfigError(
                    f'a pipeline stage wants to change an attribute that the engine lacks: "{name}".',
                    given=f"callback_to_change_engine_attributes={{{name!r}: ...}}",
                    do=did_you_mean(name, vars(engine)) or "remove it.",
                )
            setattr(engine, name, change["func"](engine, **change.get("args", {})))

    def reset(self) -> None:
        """Forgets all progress."""
        self.steps_taken_in_stage = 0
        self.rollout_count = 0
        self.early_stopping_criterion_met = False
        self.storage_uuid_to_steps_taken_in_stage.clear()
        for uuid in self.stage_component_uuid_to_stream_memory:
            self.stage_component_uuid_to_stream_memory[uuid] = Memory()

    def state_dict(self) -> dict[str, Any]:
        """Returns the progress, for the checkpoint."""
        return {
            "early_stopping_criterion_met": self.early_stopping_criterion_met,
            "steps_taken_in_stage": self.steps_taken_in_stage,
            "storage_uuid_to_steps_taken_in_stage": dict(self.storage_uuid_to_steps_taken_in_stage),
            "rollout_count": self.rollout_count,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over the progress. Old checkpoints lack the last two entries of `state_dict`."""
        self.reset()
        self.early_stopping_criterion_met = bool(state["early_stopping_criterion_met"])
        self.steps_taken_in_stage = int(state["steps_taken_in_stage"])
        self.storage_uuid_to_steps_taken_in_stage.update(state.get("storage_uuid_to_steps_taken_in_stage", {}))
        self.rollout_count = int(state.get("rollout_count", 0))
