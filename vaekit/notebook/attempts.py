"""Run what a student wrote, whatever it does, within a time limit; and say of what kind an answer is."""

import copy
import inspect
import math
import signal
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import Tensor

NOT_DONE = "not filled in yet"
NOT_YET = "not right yet"
LIMIT = 30.0  # seconds of computing, for all runs of one check together


class Fault(Exception):
    """What is wrong with an answer, in words."""


class _TimeIsUp(BaseException):
    """No `Exception`, so that an answer's own `except Exception` does not swallow it."""


class Answer:
    """A student's function, as a check calls it.

    Args:
        function: What the student wrote.
        limit: Seconds of computing that all calls together may take. It works where the system has `signal.setitimer`
            (not on Windows) and in the main thread, which is where notebooks run their cells; elsewhere there is none.

    Raises:
        Fault: It is no function, or empty.
    """

    def __init__(self, function: Any, limit: float = LIMIT) -> None:
        """See the class."""
        if function is None or function is ...:
            raise Fault(NOT_DONE)
        if not callable(function):
            raise Fault(f"{NOT_YET}: expected a function, got {kind(function)}")
        self.function, self.limit, self.left = function, limit, limit
        self.name = getattr(function, "__name__", "<lambda>").replace("<lambda>", "your function")

    def __call__(self, arguments: tuple, where: str = "") -> Any:
        """The result.

        Args:
            arguments: As for the function; `copies` of them are safe from what it does to them.
            where: Such as " on input 1 of 2", for messages.

        Raises:
            Fault: It is the bare stub, raises, ends the program or takes too long, or returns nothing.
        """
        started = time.process_time()
        try:
            with time_limit(self.left):
                came = self.function(*arguments)
        except _TimeIsUp:
            long = f"{self.limit:g} seconds of computing{where}"
            said = f"{self.name} had not returned after {long}; does a loop in it ever end?"
            raise Fault(f"{NOT_YET}: {said}") from None
        except SystemExit:
            raise Fault(f"{NOT_YET}: {self.name} ends the program (SystemExit){where}, and is to return") from None
        except Exception as error:
            if _is_bare_stub(error):
                raise Fault(NOT_DONE) from None
            tip = "; run the cells above first" if isinstance(error, NameError) else ""
            words = str(error).strip().split("\n")[0][:200].rstrip(".") or "(it says no more)"
            raise Fault(f"{NOT_YET}: {self.name} raised {type(error).__name__}{where}: {words}{tip}") from error
        finally:
            self.left = max(self.left - (time.process_time() - started), 0.05)
        if came is None or came is ...:
            raise Fault(f"{NOT_DONE}: {self.name} returns {came}")
        return came


def copies(arguments: tuple) -> tuple:
    """Copies, in double precision where they are floating-point tensors or arrays."""
    return tuple(map(_double, arguments))


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Stop the block after `seconds` of computing, where the platform and the thread allow it; waiting does not count.

    A module that is being imported is left to finish, for half a module would stay behind.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: types.FrameType | None) -> None:
        while frame is not None and "importlib" not in frame.f_code.co_filename:
            frame = frame.f_back
        if frame is None:
            raise _TimeIsUp

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, 1.0)  # once more each second, should a bare `except` swallow it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def kind(value: Any) -> str:
    """The type of a value, in words."""
    names = {
        str: "text", bool: "True or False", int: "a number", float: "a number", complex: "a complex number",
        tuple: "a tuple", list: "a list", dict: "a dictionary",
    }  # fmt: skip
    if isinstance(value, Tensor | np.ndarray):
        numbers = " of complex numbers" if "complex" in str(value.dtype) else ""
        return f"{'a tensor' if isinstance(value, Tensor) else 'an array'}{numbers} of shape {tuple(value.shape)}"
    if inspect.isroutine(value):
        return "a function (call it?)"
    size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return names.get(type(value), f"an object of type {type(value).__name__}") + size


def said_of(arguments: tuple, reference: Callable, k: int, count: int) -> str:
    """Which input this is: its numbers by name, if it consists of nothing but numbers, else its place among `count`."""
    if count == 1:
        return ""
    plain = [a.item() if isinstance(a, Tensor) and a.ndim == 0 else a for a in arguments]
    if not all(isinstance(a, int | float) and math.isfinite(a) for a in plain):
        return f" on input {k + 1} of {count}"
    try:
        names = list(inspect.signature(reference).parameters)
    except (TypeError, ValueError):
        names = []
    pairs = [f"{name} = {value:.6g}" for name, value in zip(names, plain, strict=False)]
    return f" for {', '.join(pairs)}" if len(pairs) == len(plain) and pairs else f" on input {k + 1} of {count}"


def _is_bare_stub(error: Exception) -> bool:
    """Whether it is a `raise NotImplementedError` of the student's; torch has reasons of its own to raise it."""
    if not isinstance(error, NotImplementedError) or error.args:
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return where.split(".")[0] not in ("torch", "numpy", "vaekit")


def _double(argument: Any) -> Any:
    """A copy, in double precision if it is a floating-point tensor or array."""
    if isinstance(argument, Tensor):
        fresh = argument.detach().clone()
        return (fresh.double() if fresh.is_floating_point() else fresh).requires_grad_(argument.requires_grad)
    if isinstance(argument, np.ndarray):
        return argument.astype(np.float64) if np.issubdtype(argument.dtype, np.floating) else argument.copy()
    return argument if inspect.isroutine(argument) else copy.deepcopy(argument)
