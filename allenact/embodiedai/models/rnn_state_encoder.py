"""RNNStateEncoder: a recurrent network over several episodes of several samplers, in one pass."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence


class RNNStateEncoder(nn.Module):
    """A recurrent network whose state starts anew where an episode starts.

    A rollout [T, N] contains several episodes of each sampler. They are cut apart and run side by side as one
    packed batch, which gives what stepping through the rollout and resetting states would give, in as many steps
    as the longest piece has.

    Args:
        input_size: size of the input features, D.
        hidden_size: size of the state of one layer, H.
        num_layers: recurrent layers.
        rnn_type: "GRU", "LSTM" or "RNN".
        trainable_masked_hidden_state: whether the state at the start of an episode is learned; else it is 0.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        rnn_type: str = "GRU",
        trainable_masked_hidden_state: bool = False,
    ) -> None:
        super().__init__()
        self._num_recurrent_layers = num_layers
        self._rnn_type = rnn_type
        self.rnn = getattr(nn, rnn_type)(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        self.init_hidden_state: nn.Parameter | None = None
        if trainable_masked_hidden_state:
            self.init_hidden_state = nn.Parameter(0.1 * torch.randn(num_layers, 1, hidden_size))
        self.layer_init()

    def layer_init(self) -> None:
        """Initialises the network: orthogonal weights, zero biases."""
        for name, parameter in self.rnn.named_parameters():
            if "weight" in name:
                nn.init.orthogonal_(parameter)
            elif "bias" in name:
                nn.init.zeros_(parameter)

    @property
    def num_recurrent_layers(self) -> int:
        """L, layers of the state: for an LSTM twice the layers, hidden and cell states one after the other."""
        return self._num_recurrent_layers * (2 if self._rnn_type == "LSTM" else 1)

    def forward(
        self, x: torch.Tensor, hidden_states: torch.Tensor, masks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs T steps.

        Args:
            x: [T, N, D], or [T, N, agents, D].
            hidden_states: [L, N, H], or [L, N, agents, H]; the state before the first step.
            masks: [T, N, 1] 0 where a step is the first of an episode, else 1.

        Returns:
            The outputs [T, N, H] or [T, N, agents, H], and the state after the last step, in the shape of
            `hidden_states`.
        """
        inputs, states, flat_masks = self.adapt_input(x, hidden_states, masks)
        run = self.single_forward if len(inputs) == 1 else self.seq_forward
        outputs, states = run(inputs, states, flat_masks)
        return self.adapt_result(outputs, states, x, hidden_states)

    def adapt_input(
        self, x: torch.Tensor, hidden_states: torch.Tensor, masks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Treats agents as further samplers.

        Returns:
            Inputs [T, S, D], states [L, S, H] and masks [T, S], with S = N * agents.
        """
        agents = x.shape[2] if x.dim() == 4 else 1
        return (
            x.reshape(x.shape[0], -1, x.shape[-1]),  # [T, S, D]
            hidden_states.reshape(hidden_states.shape[0], -1, hidden_states.shape[-1]),  # [L, S, H]
            masks.reshape(*x.shape[:2]).repeat_interleave(agents, dim=1),  # [T, S]
        )

    @staticmethod
    def adapt_result(
        outputs: torch.Tensor, states: torch.Tensor, x: torch.Tensor, hidden_states: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Undoes `adapt_input`: brings outputs and states into the shapes of `x` and `hidden_states`."""
        return outputs.reshape(*x.shape[:-1], -1), states.reshape(hidden_states.shape)  # [T, N, (agents,) H]

    def single_forward(
        self, x: torch.Tensor, hidden_states: torch.Tensor, masks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs one step: x [1, S, D], states [L, S, H], masks [1, S]."""
        starts = self._reset(hidden_states, masks[0])  # [L, S, H]
        outputs, states = self.rnn(x, self._unpack_hidden(starts))  # [1, S, H]
        return outputs, self._pack_hidden(states)

    def seq_forward(
        self, x: torch.Tensor, hidden_states: torch.Tensor, masks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs T steps: x [T, S, D], states [L, S, H], masks [T, S].

        With T = 6 and S = 2, episodes starting at rows 2 and 5 of the first sampler::

            sampler 0:  a a | b b b | c        pieces, longest first:  d d d d d d
            sampler 1:  d d   d d d   d                                b b b
                                                                       a a
                                                                       c
        """
        num_steps, num_samplers = masks.shape
        is_start = masks.t() == 0  # [S, T]: the steps of a sampler follow each other
        is_start[:, 0] = True
        starts = is_start.flatten().nonzero().squeeze(1)  # [K] positions in [S * T] where a piece starts
        lengths = torch.diff(starts, append=starts.new_tensor([num_steps * num_samplers]))  # [K]
        lengths, order = lengths.sort(descending=True, stable=True)  # [K], [K]
        starts = starts[order]

        offsets = torch.arange(int(lengths[0]), device=x.device).unsqueeze(1)  # [longest, 1]
        inside = offsets < lengths  # [longest, K], True for the first few pieces of each row
        rows = (starts + offsets)[inside]  # [S * T] positions, first steps of all pieces first
        batch_sizes = inside.sum(dim=1).cpu()  # [longest], kept on the CPU by PackedSequence
        packed = PackedSequence(x.transpose(0, 1).flatten(0, 1)[rows], batch_sizes)

        samplers = starts // num_steps  # [K]
        first_states = self._reset(hidden_states[:, samplers], masks.t().flatten()[starts])  # [L, K, H]
        packed_outputs, states = self.rnn(packed, self._unpack_hidden(first_states))

        outputs = packed_outputs.data[rows.argsort()]  # [S * T, H]
        outputs = outputs.unflatten(0, (num_samplers, num_steps)).transpose(0, 1)  # [T, S, H]
        ends = (starts + lengths) == (samplers + 1) * num_steps  # [K] True for the last piece of a sampler
        last_pieces = ends.nonzero().squeeze(1)  # [S]
        last_pieces = last_pieces[samplers[last_pieces].argsort()]  # [S] in the order of the samplers
        return outputs, self._pack_hidden(states)[:, last_pieces]

    def _reset(self, states: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Replaces states [L, S, H] by the initial state where masks [S] are 0."""
        keep = (masks != 0).reshape(1, -1, 1)  # [1, S, 1]
        if self.init_hidden_state is None:
            return torch.where(keep, states, 0.0)
        initial = self.init_hidden_state.repeat(len(states) // len(self.init_hidden_state), 1, 1)  # [L, 1, H]
        return torch.where(keep, states, initial)

    def _unpack_hidden(self, states: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Splits [L, S, H] into the hidden and the cell state of an LSTM."""
        return tuple(t.contiguous() for t in states.chunk(2)) if self._rnn_type == "LSTM" else states.contiguous()

    @staticmethod
    def _pack_hidden(states: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Undoes `_unpack_hidden`."""
        return torch.cat(states) if isinstance(states, tuple) else states
