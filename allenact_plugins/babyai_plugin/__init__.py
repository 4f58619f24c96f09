"""BabyAI's levels with instructions, from the `minigrid` package: tasks with the bot as expert, and its model."""
