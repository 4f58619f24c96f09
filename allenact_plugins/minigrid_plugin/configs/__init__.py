"""Small experiment configs that only need the MiniGrid plugin."""
