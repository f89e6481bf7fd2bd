"""What a process can do to itself, for good: see only some files (Landlock), call only some of the kernel (seccomp).

System calls and no policy. Landlock's numbers are from include/uapi/linux/landlock.h; each ABI adds to the one before.
Imports little: it is part of every start of a program that confines itself.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # landlock_create_ruleset, _add_rule and _restrict_self on all architectures
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1
_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read a file, read a folder
_DEVICE = 1 << 1 | 1 << 2  # write to it, read from it
_MAKE_DEVICES = 1 << 6 | 1 << 11
_OF_FILES = 0b111 | 1 << 14 | 1 << 15  # the rights that a file can give: execute, write, read, truncate, ioctl
_RIGHTS = (0, 13, 14, 15, 15, 16)  # how many rights over files an ABI knows, by its number
_TCP, _SCOPES = 0b11, 0b11  # bind and connect; abstract sockets and signals
_TCP_ABI, SCOPES_ABI = 4, 6  # the first that know them
_SET_DEATH_SIGNAL, _SET_SECCOMP, _SET_NO_NEW_PRIVILEGES = 1, 22, 38  # prctl
_SECCOMP_FILTER = 2

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """The Landlock ABI of this kernel, 0 where there is none or it is switched off."""
    try:
        return _call(_CREATE, None, ctypes.c_size_t(0), _VERSION)
    except OSError:
        return 0


def restrict(read: list[str], write: list[str], devices: list[str], *, network: bool) -> None:
    """Leave this process, and all it starts, the given files and what is below the given folders.

    A path that does not exist is left out. Raises OSError.
    """
    version = abi()
    everything = (1 << _RIGHTS[min(version, len(_RIGHTS) - 1)]) - 1
    handled = struct.pack("=QQQ", everything, 0 if network else _TCP, _SCOPES)
    fields = 1 + (version >= _TCP_ABI) + (version >= SCOPES_ABI)  # a kernel refuses those that it doesn't know
    handled = handled[: 8 * fields]
    ruleset = _call(_CREATE, handled, ctypes.c_size_t(len(handled)), 0)
    try:
        for paths, rights in ((read, _READ), (write, everything & ~_MAKE_DEVICES), (devices, _DEVICE)):
            for path in paths:
                _allow(ruleset, path, rights & everything)
        _call(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends. Raises OSError if `parent` is gone."""
    _prctl(_SET_DEATH_SIGNAL, 9)
    if os.getppid() != parent:
        raise ProcessLookupError("the process that started this one has ended")


def no_new_privileges() -> None:
    """Let no program that is run from here on gain any: set-uid bits count no more."""
    _prctl(_SET_NO_NEW_PRIVILEGES, 1)


def load_seccomp(program: bytes) -> None:
    """Put this process and all it starts under a filter; `no_new_privileges` comes first."""
    code = ctypes.create_string_buffer(program, len(program))
    _prctl(_SET_SECCOMP, _SECCOMP_FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _OF_FILES
        _call(_ADD, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _prctl(option: int, value: int, pointer: bytes | None = None) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), pointer, ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
