"""Recurrent networks over padded tokens, without packed sequences, which torch.export cannot trace.

Padding stands at the end. Read forwards, it comes after all that counts: the state after the last token is
taken from the outputs there. Read backwards, each sequence is turned round within its own length first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from orchestrator.training.recurrent import PADDING, Recurrent


class Unpacked(nn.Module):
    """What a trained recurrent network computes for tokens (n, length), with operations on whole tensors.

    Args:
        trained: has an embedding; its weights are shared.
    """

    def __init__(self, trained: Recurrent) -> None:
        super().__init__()
        self.trained = trained

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (n, outputs) of (n, length)."""
        assert self.trained.embedding is not None, "of tokens"
        places = torch.arange(tokens.shape[1], device=tokens.device)
        # An empty sequence keeps one step, as it does when it is packed.
        lengths = ((tokens != PADDING) * (places + 1)).amax(dim=1, keepdim=True).clamp(min=1)
        turned = torch.where(places < lengths, lengths - 1 - places, places)
        features, ends = self.trained.embedding(tokens), []
        for layer in range(self.trained.layers.num_layers):
            forwards = self._read(features, layer, "")
            outputs, ends = [forwards], [_at(forwards, lengths - 1)[:, 0]]
            if self.trained.layers.bidirectional:
                backwards = self._read(_at(features, turned), layer, "_reverse")
                outputs.append(_at(backwards, turned))
                ends.append(_at(backwards, lengths - 1)[:, 0])
            features = torch.cat(outputs, dim=2)
        scores: Tensor = self.trained.head(torch.cat(ends, dim=1))
        return scores

    def _read(self, features: Tensor, layer: int, direction: str) -> Tensor:
        """Return the outputs of one layer in one direction: (n, length, width)."""
        layers = self.trained.layers
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = [getattr(layers, f"{name}_l{layer}{direction}") for name in names]
        start = features.new_zeros(1, features.shape[0], layers.hidden_size)
        how = (
            True,
            1,
            0.0,
            False,
            False,
            True,
        )  # biases, layers, dropout, training, bidirectional, batch first
        if isinstance(layers, nn.LSTM):
            return torch.lstm(features, (start, start), weights, *how)[0]
        return torch.gru(features, start, weights, *how)[0]


def unpacked(model: nn.Module) -> nn.Module:
    """Return what computes the same as a network and can be traced; the network itself where it can."""
    return Unpacked(model) if isinstance(model, Recurrent) and model.embedding is not None else model


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Return what stands at places (n, k) of values (n, length, width): (n, k, width)."""
    return values.gather(1, places[:, :, None].expand(-1, -1, values.shape[2]))
