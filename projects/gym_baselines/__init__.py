"""One experiment per MuJoCo task, all with the same PPO recipe."""
