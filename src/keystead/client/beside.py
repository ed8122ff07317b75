"""A process of its own beside this one, on another core, for work with local files.

Threads of one Python take turns, processes do not. The other one has no keys and knows of no service; it shares a piece of memory with this
one, and they exchange messages: 4 bytes of length, then MessagePack. They have no version, for both are one program and end together: when
one is gone the other sees the end of the pipe.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from keystead.core.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

_LENGTH = struct.Struct(">I")
_encode = msgspec.msgpack.Encoder().encode
_START = "import sys; sys.path[:] = sys.argv[3:]; import importlib; importlib.import_module(sys.argv[2]).main()"
"""Modules come from where they come from here, whatever made it so: a variable, a script, the place of a zip."""


def can_run(path: str) -> bool:
    """Whether there is a second core, memory that is shared by a descriptor, a Python to start, and a path that is text to tell it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return hasattr(os, "memfd_create") and len(os.sched_getaffinity(0)) > 1 and bool(sys.executable) and not hasattr(sys, "frozen")


class Beside:
    """Runs a module with shared memory. Use it as a context; the process is gone when the block is left.

    Args:
        module: its `main` runs there.
        size: bytes of the memory.

    Attributes:
        memory: what both share; zeros at first.

    Raises:
        OSError: there is no room for the memory or the process, or a limit forbids it.
    """

    def __init__(self, module: str, size: int) -> None:
        descriptor = _unnamed()
        try:
            os.ftruncate(descriptor, size)
            self.memory = memoryview(mmap.mmap(descriptor, size))
            # In a process group of its own: an interrupt from the keyboard reaches it as everything else does, as the end of the pipe. And
            # without the working directory among the places that modules come from: nothing that lies there is run.
            places = [place for place in sys.path if os.path.isabs(place)]  # noqa: PTH117 - text, also of a place that is no folder
            flag = "-I" if sys.flags.ignore_environment else "-P"
            command = [sys.executable, flag, "-c", _START, str(descriptor), module, *places, str(Path(__file__).parents[2])]
            told = {name: value for name, value in os.environ.items() if not name.startswith("KEYSTEAD_")}  # no passphrase and no token
            self._process = subprocess.Popen(  # noqa: S603 - this very program
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, pass_fds=(descriptor,), process_group=0, env=told
            )
        finally:
            os.close(descriptor)
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("both ends were asked for")
        self._out, self._in = self._process.stdin, self._process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._out.close()
        while os.read(self._in.fileno(), 4096):  # it goes when it has done what it was given, and can say so until then
            pass
        self._in.close()
        self._process.wait()

    def send(self, message: object) -> None:
        """Give it a message.

        Raises:
            BrokenPipeError: it is gone; what it said before can still be received.
        """
        send(self._out.fileno(), message)

    def receive(self, decode: Callable[[bytes], Any]) -> Any:  # noqa: ANN401 - what the decoder gives
        """Its next message.

        Raises:
            Unavailable: `helper_ended`.
        """
        data = receive(self._in.fileno())
        if data is None:
            raise Unavailable("helper_ended", "the process that writes the files ended before it was done", "try again")
        return decode(data)


def _unnamed() -> int:
    """A descriptor of memory without a name, above those of the standard streams: where one of these is closed, it would be theirs there."""
    descriptor = os.memfd_create("keystead")
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)


def memory_of(size: int) -> memoryview:
    """The memory that both share, in the process that was started."""
    return memoryview(mmap.mmap(int(sys.argv[1]), size))


def send(pipe: int, message: object) -> None:
    """Write a message. Raises: `BrokenPipeError`: nobody reads any more."""
    data = _encode(message)
    rest = memoryview(_LENGTH.pack(len(data)) + data)
    while rest:
        rest = rest[os.write(pipe, rest) :]


def receive(pipe: int) -> bytes | None:
    """Read a message; None where the pipe has ended, also within one."""
    head = _read(pipe, _LENGTH.size)
    return _read(pipe, *_LENGTH.unpack(head)) if head is not None else None


def _read(pipe: int, size: int) -> bytes | None:
    held = b""
    while len(held) < size:
        piece = os.read(pipe, size - len(held))
        if not piece:
            return None
        held += piece
    return held
