"""Seeds are reproducible and derived as documented; generator states survive a checkpoint."""

import io
import random

import numpy as np
import torch

from allenact.utils.seeding import (
    capture_rng_state,
    checkpoint_seed,
    preserve_rng_state,
    restore_rng_state,
    set_deterministic_cudnn,
    set_seed,
    worker_seeds,
)


def draw():
    return random.random(), np.random.rand(), np.random.randn(), torch.rand(3).tolist(), random.gauss(0, 1)


def test_set_seed_makes_all_generators_repeat():
    set_seed(7)
    first = draw()
    assert draw() != first
    set_seed(7)
    assert draw() == first
    set_seed(8)
    assert draw() != first


def test_seed_none_changes_nothing():
    set_seed(7)
    expected = draw()
    set_seed(7)
    set_seed(None)
    assert draw() == expected


def test_seeds_beyond_32_bits_are_accepted():
    set_seed(2**40 + 3)
    assert draw()


def test_reference_values_of_worker_seeds():
    assert worker_seeds(4, 12345) == [1789368711, 43676229, 1282648386, 1582316135]
    assert worker_seeds(4, 1) == [577090037, 271041745, 1095513148, 506456969]


def test_worker_seeds_from_a_seed_leave_the_global_generator_alone():
    random.seed(3)
    expected = random.random()
    random.seed(3)
    worker_seeds(10, 12345)
    assert random.random() == expected


def test_worker_seeds_without_a_seed_follow_the_global_generator():
    set_seed(12345)
    assert worker_seeds(4, None) == worker_seeds(4, 12345)
    assert worker_seeds(4, None) != worker_seeds(4, 12345)


def test_reference_values_of_checkpoint_seeds():
    assert (12345 ^ (10240 + 1)) % (2**31 - 1) == 6200
    assert checkpoint_seed(12345, 10240, worker_id=0, num_workers=1) == 1042059198
    assert checkpoint_seed(12345, 10240, worker_id=0, num_workers=2) == 1042059198
    assert checkpoint_seed(12345, 10240, worker_id=1, num_workers=2) == 187209734


def test_captured_state_survives_a_checkpoint_file():
    set_seed(1)
    draw()  # NumPy and Python each hold a second normal variate now
    file = io.BytesIO()
    torch.save(capture_rng_state(), file)
    expected = [draw(), draw()]
    set_seed(99)
    file.seek(0)
    restore_rng_state(torch.load(file, weights_only=True))
    assert [draw(), draw()] == expected


def test_preserve_rng_state_hides_what_happens_inside():
    set_seed(2)
    expected = draw()
    set_seed(2)
    try:
        with preserve_rng_state():
            set_seed(5)
            draw()
            raise KeyError
    except KeyError:
        pass
    assert draw() == expected


def test_deterministic_cudnn(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    set_deterministic_cudnn()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
