"""Recurrent networks for sequences: LSTM (Hochreiter and Schmidhuber 1997) and GRU (Cho et al. 2014)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from orchestrator.errors import UserError
from orchestrator.training.settings import ModelSettings

PADDING = 0  # the token that fills up short sequences
KINDS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """A recurrent network whose state after the last valid step decides.

    It takes tokens (n, length) int64, whose padding at the end is not read; numbers (n, length, features); or
    images (n, channels, height, width), row by row from the top.

    Args:
        settings: name (lstm or gru), width, depth, embedding, bidirectional, dropout, input_dropout.
        shape: of one sample.
        outputs: classes, or 1.
        vocabulary: number of tokens, the padding among them; None where the samples are numbers.

    Raises:
        UserError: a shape that is no sequence.
    """

    def __init__(
        self, settings: ModelSettings, shape: tuple[int, ...], outputs: int, vocabulary: int | None
    ) -> None:
        super().__init__()
        self.embedding: nn.Embedding | None = None
        if vocabulary is not None:
            self.embedding = nn.Embedding(vocabulary, settings.embedding, padding_idx=PADDING)
            features = settings.embedding
        elif len(shape) in (2, 3):
            features = shape[1] if len(shape) == 2 else shape[0] * shape[2]
        else:
            raise UserError(
                f"{settings.name} takes sequences (length, features), and a sample's shape is {shape}",
                key="model.name",
                hint="Use mlp for tables",
            )
        self.input_dropout = nn.Dropout(settings.input_dropout)
        self.layers = KINDS[settings.name](
            features,
            settings.width,
            num_layers=settings.depth,
            batch_first=True,
            bidirectional=settings.bidirectional,
            dropout=settings.dropout if settings.depth > 1 else 0.0,
        )
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(settings.width * (2 if settings.bidirectional else 1), outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (n, outputs)."""
        if self.embedding is not None:
            features = self.input_dropout(self.embedding(inputs))
            _, state = self.layers(_packed(features, inputs))
        else:
            _, state = self.layers(self.input_dropout(_rows(inputs)))
        last = state[0] if isinstance(state, tuple) else state  # (layers x directions, n, width)
        ends = torch.cat([last[-2], last[-1]], dim=1) if self.layers.bidirectional else last[-1]
        scores: Tensor = self.head(self.dropout(ends))
        return scores


def _rows(inputs: Tensor) -> Tensor:
    """Return images as sequences (n, height, channels x width), sequences as they are."""
    return inputs.transpose(1, 2).flatten(2) if inputs.ndim == 4 else inputs


def _packed(features: Tensor, tokens: Tensor) -> nn.utils.rnn.PackedSequence:
    """Return (n, length, embedding) without what follows the last token; an empty one keeps one step."""
    places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    lengths = ((tokens != PADDING) * places).amax(dim=1).clamp(min=1)
    return pack_padded_sequence(features, lengths.cpu(), batch_first=True, enforce_sorted=False)
