"""What a user writes against: tasks, sensors, distributions, experiment descriptions."""
