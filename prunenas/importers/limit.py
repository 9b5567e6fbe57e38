"""A limit in seconds on work that may hang, told with what was being done."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from torch import nn

from prunenas.errors import TraceError


@contextlib.contextmanager
def within(seconds: float, module: nn.Module, doing: Callable[[], str]) -> Iterator[None]:
    """End the block after ``seconds``, in the main thread at once, elsewhere at the next module.

    Raises:
        TraceError: Time is up; the message tells ``doing`` and the module that was being called.
    """
    names = {id(m): name or "the network itself" for name, m in module.named_modules()}
    called = ["the network itself"]
    over = threading.Event()

    def give_up() -> None:
        raise TraceError(
            f"tracing took longer than {seconds:g} s: {doing()} at {called[0]}; give a longer "
            "time_limit, or trace a part of the network"
        )

    def alarm(number: int, frame: FrameType | None) -> None:
        over.set()
        give_up()

    def enter(submodule: nn.Module, inputs: object) -> None:
        # The hook is every thread's.
        if threading.get_ident() != thread:
            return
        called[0] = names.get(id(submodule), called[0])
        if over.is_set():
            give_up()

    thread = threading.get_ident()
    alarms = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
    timer = threading.Timer(seconds, over.set)
    timer.daemon = True
    hook = nn.modules.module.register_module_forward_pre_hook(enter)
    try:
        with _alarm(seconds, alarm) if alarms else contextlib.nullcontext():
            timer.start()
            yield
    finally:
        hook.remove()
        timer.cancel()


@contextlib.contextmanager
def _alarm(seconds: float, handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call ``handler`` after ``seconds``; somebody else's alarm goes on with what is left of it."""
    began = time.monotonic()
    before = signal.signal(signal.SIGALRM, handler)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)
        if left:
            passed = time.monotonic() - began
            signal.setitimer(signal.ITIMER_REAL, max(left - passed, 1e-6), interval)
