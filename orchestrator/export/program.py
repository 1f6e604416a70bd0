"""A trained network as a program that needs neither its class nor this package: `torch.export`."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from orchestrator.export.vetting import Unsafe, stripped, vet

# Between a program and the module that it was made from: the same kernels, so hardly more than nothing.
TOLERANCE = 1e-4


class Refused(Exception):
    """A network cannot be made a program; the message says why, in one line."""


class Finished(nn.Module):
    """A network together with what its job does to its outputs.

    Args:
        network: (n, ...) to (n, outputs).
        scale: what outputs are multiplied by.
        center: what is added then; 0 for classes.
    """

    def __init__(self, network: nn.Module, scale: float = 1.0, center: float = 0.0) -> None:
        super().__init__()
        self.network, self.scale, self.center = network, scale, center

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits of classes, or values in the data's own units: (n, outputs)."""
        outputs: Tensor = self.network(inputs)
        if self.scale == 1.0 and self.center == 0.0:
            return outputs
        # In double precision, as the job's own predictions are.
        return (outputs.double() * self.scale + self.center).to(outputs.dtype)


def export_program(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Trace a network for batches of any size.

    Args:
        module: takes one tensor (n, ...) and gives one (n, ...); it is put into evaluation mode.
        example: samples as they go into it, two or more.

    Raises:
        Refused: torch.export cannot, or the program gives other outputs than the network.
    """
    module = module.eval().requires_grad_(False)
    example = example[:4] if len(example) > 1 else torch.cat([example, example])
    try:
        with torch.no_grad(), quiet():
            program = torch.export.export(
                module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
            )
            run = program.module()
            for count in (1, 2 * len(example) + 1):
                inputs = example[torch.arange(count) % len(example)]
                _compare(run(inputs), module(inputs))
    except Refused:
        raise
    except Exception as error:  # torch.export raises whatever the traced code does
        raise Refused(first_line(error)) from error
    return program


def program_bytes(program: torch.export.ExportedProgram) -> bytes:
    """Return a program as the content of a *.pt2 file without any pickle in it.

    Raises:
        Refused: it holds more than a plain network does, and could not be read back without trust.
    """
    # The example is the one thing that torch.export.save would pickle.
    program.example_inputs = None
    buffer = io.BytesIO()
    try:
        with quiet():
            torch.export.save(program, buffer)
        content = stripped(buffer.getvalue())
        vet(content)
    except Unsafe as reason:
        raise Refused(f"its program could not be read back without trust: {reason}") from None
    except Exception as error:
        raise Refused(first_line(error)) from error
    return content


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep back what torch.export prints of a graph that it refuses: the reason is in its exception."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _compare(given: Tensor, wanted: Tensor) -> None:
    if given.shape != wanted.shape:
        raise Refused(f"its program gives {tuple(given.shape)}, the network {tuple(wanted.shape)}")
    difference = (given.double() - wanted.double()).abs().max().item()
    if not difference <= TOLERANCE * max(1.0, wanted.double().abs().max().item()):
        raise Refused(f"its program gives other outputs than the network, by up to {difference:.3g}")


def first_line(error: BaseException) -> str:
    """Return what an exception says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:300]
