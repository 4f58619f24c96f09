"""Gymnasium tasks for AllenAct: MuJoCo, Box2D and any registered environment with vector or discrete actions."""
