"""What to train, declared: which losses, on which storage, with which settings, for how long."""
