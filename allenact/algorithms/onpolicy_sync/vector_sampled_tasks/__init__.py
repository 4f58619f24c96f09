"""Many task samplers stepped together: in this process, in worker processes, or by one vectorised engine.

`SingleProcessVectorSampledTasks` is the reference; `ProcessVectorTasks` and `BatchedVectorTasks` give the same numbers,
faster. `VectorSampledTasks` is `ProcessVectorTasks` with the constructor and the list interface of AllenAct.
"""

from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.base import VectorTasks
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.batched import BatchedVectorTasks
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.factory import make_vector_tasks
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.multi_process import VectorSampledTasks
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.process import ProcessVectorTasks
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.protocol import (
    ACTION_SPACE_COMMAND,
    ATTR_COMMAND,
    CALL_COMMAND,
    CLOSE_COMMAND,
    COMPLETE_TASK_CALLBACK_KEY,
    COMPLETE_TASK_METRICS_KEY,
    DEFAULT_MP_CONTEXT_TYPE,
    NEXT_TASK_COMMAND,
    OBSERVATION_SPACE_COMMAND,
    PAUSE_COMMAND,
    RENDER_COMMAND,
    RESET_COMMAND,
    RESUME_COMMAND,
    SAMPLER_ATTR_COMMAND,
    SAMPLER_COMMAND,
    SEED_COMMAND,
    STEP_COMMAND,
)
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.signals import DelaySignalHandling
from allenact.algorithms.onpolicy_sync.vector_sampled_tasks.single_process import (
    SingleProcessVectorSampledTasks,
)

__all__ = [
    "ACTION_SPACE_COMMAND",
    "ATTR_COMMAND",
    "CALL_COMMAND",
    "CLOSE_COMMAND",
    "COMPLETE_TASK_CALLBACK_KEY",
    "COMPLETE_TASK_METRICS_KEY",
    "DEFAULT_MP_CONTEXT_TYPE",
    "NEXT_TASK_COMMAND",
    "OBSERVATION_SPACE_COMMAND",
    "PAUSE_COMMAND",
    "RENDER_COMMAND",
    "RESET_COMMAND",
    "RESUME_COMMAND",
    "SAMPLER_ATTR_COMMAND",
    "SAMPLER_COMMAND",
    "SEED_COMMAND",
    "STEP_COMMAND",
    "BatchedVectorTasks",
    "DelaySignalHandling",
    "ProcessVectorTasks",
    "SingleProcessVectorSampledTasks",
    "VectorSampledTasks",
    "VectorTasks",
    "make_vector_tasks",
]
