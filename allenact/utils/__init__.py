"""Tools that know nothing of training: spaces, tensors, seeds, logging."""
