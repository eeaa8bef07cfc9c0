"""Arrays out of a pickle, read as data: nothing that a pickle names is imported or called.

A pickle is a program for a stack machine, which may call any function of Python. Here the few instructions that NumPy
writes for a list of arrays are followed on a stack of plain values. A call becomes a record of its name and arguments,
and only the three records that make up an array are understood afterwards. Everything else is refused.
"""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.settings import RequestError, one_line

LARGEST_FILE = 100_000_000  # bytes
RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
NAMES = (*RECONSTRUCT, "numpy ndarray", "numpy dtype")
KINDS = ("f4", "f8")  # of numbers: float32, float64
LITERALS = ("BININT", "BININT1", "BININT2", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES")
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Call:
    """A call that the pickle asks for, written down instead of made."""

    def __init__(self, name: Any, arguments: Any):
        self.name, self.arguments, self.state = name, arguments, None


class _Name(str):
    """What the pickle would import, "module name"."""


def read_arrays(path: str | Path) -> list[np.ndarray]:
    """Reads a list of arrays that Python 3 has pickled (protocol 3 or 4), without running anything of the file.

    Args:
        path: of the file, at most 100 MB.

    Returns:
        The arrays, of float32 or float64, as copies.

    Raises:
        RequestError: the file cannot be read, or holds anything else than such a list.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"it has {path.stat().st_size:,} bytes, and at most {LARGEST_FILE:,} are read")
        listed = _Machine().run(path.read_bytes())
        if not isinstance(listed, list):
            raise ValueError("it holds no list")
        return [_array(value) for value in listed]
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror}): name a file that exists.") from None
    except (ValueError, IndexError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise RequestError(
            f"{path} is not read: {one_line(error)}. Only a list of NumPy arrays of float32 or float64 is allowed, "
            "pickled with protocol 3 or 4, such as target_params_py3.pkl of SeqGAN's code."
        ) from None


class _Machine:
    """A pickle's stack machine, reduced to lists, tuples, numbers, strings, bytes and records of calls."""

    def __init__(self):
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """Follows the instructions to the end and returns what is left on the stack."""
        for instruction, argument, _ in pickletools.genops(data):
            name = instruction.name
            if name == "STOP":
                return self.stack.pop()
            if name in LITERALS:
                self.stack.append(argument)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name])
            elif name in TUPLES:
                self._push_tuple(len(self.stack) - TUPLES[name])
            elif name not in ("PROTO", "FRAME"):
                action = getattr(self, f"_{name.lower()}", None)
                if action is None:
                    raise ValueError(f"it contains the instruction {name}, which no list of arrays needs")
                action(argument)
        raise ValueError("it ends too early")

    def _mark(self, _):
        self.marks.append(len(self.stack))

    def _empty_list(self, _):
        self.stack.append([])

    def _append(self, _):
        self._extend(len(self.stack) - 1)

    def _appends(self, _):
        self._extend(self.marks.pop())

    def _tuple(self, _):
        self._push_tuple(self.marks.pop())

    def _binput(self, place):
        self.memo[place] = self.stack[-1]

    _long_binput = _binput

    def _memoize(self, _):
        self.memo[len(self.memo)] = self.stack[-1]

    def _binget(self, place):
        self.stack.append(self.memo[place])

    _long_binget = _binget

    def _global(self, name):
        if name not in NAMES:
            raise ValueError(f"it would call {name.replace(' ', '.')}, which is not part of an array")
        self.stack.append(_Name(name))

    def _stack_global(self, _):
        module, name = self._take(len(self.stack) - 2)
        self._global(f"{module} {name}")

    def _reduce(self, _):
        name, arguments = self._take(len(self.stack) - 2)
        if not isinstance(name, _Name):
            raise ValueError("it would call something that is not a part of an array")
        self.stack.append(_Call(name, arguments))

    def _build(self, _):
        state = self.stack.pop()
        self.stack[-1].state = state

    def _take(self, start: int) -> list[Any]:
        """Removes what lies on the stack from a place on, and returns it."""
        if start < 0:
            raise ValueError("its stack is too short")
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def _push_tuple(self, start: int) -> None:
        self.stack.append(tuple(self._take(start)))

    def _extend(self, start: int) -> None:
        taken = self._take(start)
        if not isinstance(self.stack[-1], list):
            raise ValueError("it appends to what is no list")
        self.stack[-1].extend(taken)


def _array(value: Any) -> np.ndarray:
    """Makes an array of a record: (version, shape, dtype, whether columns come first, bytes)."""
    if not isinstance(value, _Call) or value.name not in RECONSTRUCT:
        raise ValueError("one of its entries is no array")
    _, shape, dtype, by_columns, content = value.state
    if not isinstance(dtype, _Call) or dtype.name != "numpy dtype" or dtype.arguments[0] not in KINDS:
        raise ValueError("one of its arrays does not hold float32 or float64")
    order = dtype.state[1] if dtype.state else "="
    if order not in ("<", ">", "=") or not isinstance(content, bytes):
        raise ValueError("one of its arrays has no readable bytes")
    flat = np.frombuffer(content, np.dtype(order + dtype.arguments[0]))
    return flat.reshape(shape, order="F" if by_columns else "C").copy()
