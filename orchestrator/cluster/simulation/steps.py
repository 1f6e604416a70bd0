"""Steps: a function that goes on, piece by piece, when it is told to; so one thread at a time runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

# Called inside a function to end its present piece; the next one begins so many seconds later.
Pause = Callable[[float], None]


class Killed(BaseException):
    """Ends a pretended process wherever it is, as kill -9 does; nothing may catch it and go on."""


def as_steps(body: Callable[[Pause], object]) -> Iterator[float]:
    """Give the seconds of each pause of a function, which runs in a thread of its own in between.

    Closing the iterator kills it: its pause raises `Killed`, as does every pause after that one.

    Raises:
        BaseException: whatever the function raised, `Killed` included.
    """
    ours, theirs = threading.Lock(), threading.Lock()
    ours.acquire()
    theirs.acquire()
    paused: list[float] = []
    raised: list[BaseException] = []
    closed = finished = False

    def pause(seconds: float) -> None:
        if not closed:
            paused.append(seconds)
            ours.release()
            theirs.acquire()
        if closed:
            raise Killed

    def run() -> None:
        nonlocal finished
        try:
            body(pause)
        except BaseException as error:
            raised.append(error)
        finished = True
        ours.release()

    thread = threading.Thread(target=run, daemon=True, name="steps")
    thread.start()
    try:
        while True:
            ours.acquire()
            if finished:
                break
            yield paused.pop()
            theirs.release()
    finally:
        if not finished:
            closed = True
            theirs.release()
        thread.join()
    if raised:
        raise raised[0]
