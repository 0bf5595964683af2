"""Hear that the process is to end, while its server still waits for open answers."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def told_to_stop(act: Callable[[], None]) -> Iterator[None]:
    """Call a function on this event loop when a signal asks the process to end.

    A server tells the application only after the last answer has ended, which a stream would keep
    from it. The server's own reaction to the signal follows as before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread hear signals
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def hear(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(act)
        earlier = before[signal.Signals(number)]
        if callable(earlier):
            earlier(number, frame)

    for number in SIGNALS:
        signal.signal(number, hear)
    try:
        yield
    finally:
        for number, earlier in before.items():
            # Somebody else may have taken it since.
            if signal.getsignal(number) is hear:
                signal.signal(number, earlier)
