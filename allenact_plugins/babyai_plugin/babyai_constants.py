"""Where the BabyAI plugin keeps its data."""

from __future__ import annotations

from pathlib import Path

# A string, because experiments join it with os.path.join.
BABYAI_EXPERT_TRAJECTORIES_DIR = str(Path(__file__).resolve().parent / "data" / "demos")
