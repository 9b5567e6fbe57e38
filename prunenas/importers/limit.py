"""A limit in seconds on work that may hang, told with what was being done."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from torch import nn

from prunenas.errors import TraceError


@contextmanager
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
        called[0] = names.get(id(submodule), called[0])
        if over.is_set():
            give_up()

    main = threading.current_thread() is threading.main_thread()
    hook = nn.modules.module.register_module_forward_pre_hook(enter)
    timer = threading.Timer(seconds, over.set)
    timer.daemon = True
    if main:
        before = signal.signal(signal.SIGALRM, alarm)
        signal.setitimer(signal.ITIMER_REAL, seconds)
    else:
        timer.start()
    try:
        yield
    finally:
        hook.remove()
        if main:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        else:
            timer.cancel()
