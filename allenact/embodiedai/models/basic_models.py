"""Small networks and actor-critics, under the path that experiments import them from."""

from allenact.embodiedai.models.actor_critics import LinearActorCritic, RNNActorCritic
from allenact.embodiedai.models.rnn_state_encoder import RNNStateEncoder
from allenact.embodiedai.models.simple_cnn import SimpleCNN

__all__ = ["LinearActorCritic", "RNNActorCritic", "RNNStateEncoder", "SimpleCNN"]
