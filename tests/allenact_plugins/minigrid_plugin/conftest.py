"""Worlds drawn by hand."""

import pytest

pytest.importorskip("minigrid")

from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball, Goal, Lava, Wall
from minigrid.minigrid_env import MiniGridEnv

OBJECTS = {"#": Wall, "G": Goal, "L": Lava, "o": Ball}


class DrawnEnv(MiniGridEnv):
    """`#` wall, `G` goal, `L` lava, `o` ball, `.` empty; the agent is one of `>v<^`."""

    def __init__(self, picture, mission="get there", **kwargs):
        self.rows = picture.split()
        super().__init__(
            mission_space=MissionSpace(mission_func=lambda: mission),
            width=len(self.rows[0]),
            height=len(self.rows),
            see_through_walls=True,
            **kwargs,
        )
        self.reset()

    def _gen_grid(self, width, height):
        self.grid = Grid(width, height)
        for y, row in enumerate(self.rows):
            for x, letter in enumerate(row):
                if letter in ">v<^":
                    self.agent_pos, self.agent_dir = (x, y), ">v<^".index(letter)
                elif letter in OBJECTS:
                    self.grid.set(x, y, OBJECTS[letter]())


@pytest.fixture
def draw():
    """Makes an environment from a picture."""
    return DrawnEnv
