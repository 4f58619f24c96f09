"""Callbacks do nothing unless told to."""

import pytest

from allenact.base_abstractions.callbacks import Callback


def test_every_hook_is_optional():
    callback = Callback()
    callback.setup("name/start", None, "train", later_addition=1)
    for hook in (callback.on_train_log, callback.on_valid_log, callback.on_test_log):
        hook(
            metrics=[],
            metric_means={},
            tasks_data=[],
            step=0,
            scalar_name_to_total_experiences_key={},
            checkpoint_file_name=None,
            later_addition=1,
        )
        with pytest.raises(TypeError):
            hook(metrics=[])
    callback.on_start(output_dir=None, metrics_dir=None, description={}, later_addition=1)
    callback.on_end(failed=False, later_addition=1)
    callback.after_save_project_state("folder")
    assert callback.callback_sensors() is None
