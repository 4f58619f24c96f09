"""`gym.utils.seeding` for environments written for gym: their generators have the methods of NumPy's `RandomState`."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.utils import seeding


class OldStyleGenerator(np.random.Generator):
    """A generator that also knows the names that gym's had; the numbers are the generator's."""

    def __reduce__(self) -> Any:
        """Copies are of this class, too; NumPy's own way makes a `numpy.random.Generator`."""
        return OldStyleGenerator, (self.bit_generator,)

    def randint(self, low: int, high: int | None = None, size: Any = None, dtype: Any = int) -> Any:
        """Returns whole numbers from `low` to below `high`, or from 0 to below `low`; one is a Python int."""
        drawn = self.integers(low, high, size, dtype)
        return int(drawn) if size is None else drawn

    def rand(self, *shape: int) -> Any:
        """Returns numbers that are uniform in [0, 1)."""
        return self.random(shape or None)

    def randn(self, *shape: int) -> Any:
        """Returns standard normal numbers."""
        return self.standard_normal(shape or None)

    def random_sample(self, size: Any = None) -> Any:
        """Returns numbers that are uniform in [0, 1)."""
        return self.random(size)


def np_random(seed: int | None = None) -> tuple[OldStyleGenerator, int]:
    """Returns a generator and its seed, which is drawn from the operating system if None is given."""
    generator, seed = seeding.np_random(seed)
    return OldStyleGenerator(generator.bit_generator), seed
