"""Whole simulated sweeps, with verbs and faults drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

from simulated_faults import ACCIDENTS, FAULTS, PARKS, WORKERS_TOO, Fault
from simulated_sweeps import MOST_ROUNDS, ROUND_SECONDS, Ran, World
from simulated_templates import Template

# Operations of an undisturbed sweep, over which faults are spread.
USUAL_OPERATIONS = 1500


def run_schedule(template: Template, seed: int, *, whole: bool = False) -> Ran:
    """Draw a schedule from a seed, run it and check how the sweep ends."""
    draw = random.Random(f"schedule {seed}")
    with World(template, seed, whole=whole) as world:
        count = draw.choice([0, 1, 2, 3, 5, 10, 20])
        world.faults = sorted(_fault(draw) for _ in range(count))
        stormy = draw.choice([0.0, 0.02, 0.1])
        cancelled, retried = (draw.randrange(300) if draw.random() < 0.1 else None for _ in range(2))
        for turn in range(draw.choice([30, 100, 300])):
            if world.done:
                break
            if turn == cancelled:
                world.cancel()
            if turn == retried:
                world.retry()
            _verb(world, draw, stormy)
        return world.ran()


def run_calm(template: Template, seed: int, faults: Sequence[Fault] = ()) -> Ran:
    """Run a sweep by one controller after another, with nothing but the given faults."""
    with World(template, seed) as world:
        world.faults = sorted(faults)
        for _ in range(MOST_ROUNDS):
            if world.done:
                break
            world.call()
            world.go(0, 1_000_000)
            world.tick(ROUND_SECONDS)
        return world.ran()


def _fault(draw: random.Random) -> Fault:
    name = draw.choice(list(FAULTS))
    kind = draw.choice(["", *sorted(FAULTS[name])])
    role = draw.choice(["controller", "worker"]) if kind in WORKERS_TOO else ""
    return Fault(draw.randrange(USUAL_OPERATIONS), name, kind, role)


def _verb(world: World, draw: random.Random, stormy: float) -> None:
    if not any(not one.over for one in world.controllers) or draw.random() < 0.04:
        world.call(draw.randrange(2), patient=draw.random() < 0.2)
    chance, which = draw.random(), draw.randrange(8)
    if chance < stormy:
        world.accident(draw.choice(ACCIDENTS), which)
    elif chance < stormy + 0.02:
        world.kill(which)
    elif chance < stormy + 0.05:
        world.freeze(which)
    elif chance < stormy + 0.09:
        world.park(which, draw.choice(PARKS))
    elif chance < 0.4:
        world.tick(draw.choice([1.0, 10.0, 60.0, 400.0]))
    else:
        world.go(which, int(draw.expovariate(1 / 100)))
