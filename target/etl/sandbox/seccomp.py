"""Builds the seccomp filter: system calls that no ETL needs and that have opened sandboxes before are refused.

The filter is classic BPF over `struct seccomp_data` (linux/seccomp.h, linux/filter.h). Numbers are the kernel's, from
arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import errno
import platform
import socket
import struct
from dataclasses import dataclass, field
from functools import lru_cache

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # AUDIT_ARCH_*, column below
_X32 = 0x40000000  # x86_64's second set of system calls: none of ours

# Not on an architecture: -1. Those from 424 on have one number everywhere.
_NUMBERS = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chmod": (90, -1),
    "chown": (92, -1),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "connect": (42, 203),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "finit_module": (313, 273),
    "fremovexattr": (199, 16),
    "fsconfig": (431, 431),
    "fsetxattr": (190, 7),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "futimesat": (261, -1),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, -1),
    "iopl": (172, -1),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "kill": (62, 129),
    "lchown": (94, -1),
    "lookup_dcookie": (212, 18),
    "lremovexattr": (198, 15),
    "lsetxattr": (189, 6),
    "modify_ldt": (154, -1),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "removexattr": (197, 14),
    "removexattrat": (466, 466),
    "request_key": (249, 218),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "setpgid": (109, 154),
    "setsid": (112, 157),
    "settimeofday": (164, 170),
    "setxattr": (188, 5),
    "setxattrat": (463, 463),
    "socket": (41, 198),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "sysfs": (139, -1),
    "syslog": (103, 116),
    "tgkill": (234, 131),
    "tkill": (200, 130),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, -1),
    "userfaultfd": (323, 282),
    "utime": (132, -1),
    "utimensat": (280, 88),
    "utimes": (235, -1),
    "vhangup": (153, 58),
}
# Refused whatever else is around the program.
_NEVER = (
    *("acct", "add_key", "adjtimex", "bpf", "chroot", "clock_adjtime", "clock_settime", "delete_module"),
    *("fanotify_init", "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "init_module", "io_uring_enter"),
    *("io_uring_register", "io_uring_setup", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl"),
    *("lookup_dcookie", "modify_ldt", "mount", "mount_setattr", "move_mount", "name_to_handle_at"),
    *("open_by_handle_at", "open_tree", "open_tree_attr", "perf_event_open", "pidfd_getfd", "pivot_root"),
    *("process_madvise", "process_vm_readv", "process_vm_writev", "ptrace", "quotactl", "quotactl_fd", "reboot"),
    *("request_key", "setdomainname", "sethostname", "setns", "settimeofday", "swapoff", "swapon", "syslog", "sysfs"),
    *("umount2", "unshare", "uselib", "userfaultfd", "vhangup"),
)
# What namespaces take care of elsewhere: signals to others, and leaving the process group that is killed at the end.
_SIGNALS = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal")
_GROUPS = ("setsid", "setpgid")
# What Landlock leaves to a file's owner, wherever the file is.
_OWNERS = (
    *("chmod", "chown", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "lchown", "utime", "utimes"),
    *("utimensat", "futimesat"),
)
_ATTRIBUTES = (
    *("setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr", "fremovexattr"),
    "removexattrat",
)

_CLONE_NEW = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
_TYPE_MASK = 0xF

_LOAD, _EQUALS, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06  # BPF opcodes
_NUMBER, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24  # offsets in struct seccomp_data; of an argument the low half
_KILL, _ALLOW = 0x80000000, 0x7FFF0000
_Instruction = tuple[int, int, int, int]


def supported() -> bool:
    """Whether this machine's system calls are known."""
    return platform.machine() in _ARCHITECTURES


@dataclass(slots=True)
class _Filter:
    """A filter being written: one check after another, each ending in a refusal or falling through."""

    column: int
    code: list[_Instruction] = field(default_factory=list)

    def refuse(self, name: str, number: int = errno.EPERM) -> None:
        """Let a call fail."""
        self._when(name, [_fail(number)])

    def refuse_when(self, name: str, offset: int, bits: int) -> None:
        """Let a call fail when an argument has any of some bits."""
        self._when(name, [(_LOAD, 0, 0, offset), (_ANY_BIT, 0, 1, bits), _fail(errno.EPERM)])

    def only(self, name: str, offset: int, values: tuple[int, ...], mask: int, number: int) -> None:
        """Let a call fail unless an argument is one of `values`."""
        left = len(values)
        checks = [(_EQUALS, left - i, 0, value) for i, value in enumerate(values)]
        self._when(name, [(_LOAD, 0, 0, offset), (_AND, 0, 0, mask), *checks, _fail(number)])

    def _when(self, name: str, then: list[_Instruction]) -> None:
        number = _NUMBERS[name][self.column]
        if number >= 0:
            self.code += [(_LOAD, 0, 0, _NUMBER), (_EQUALS, 0, len(then), number), *then]


@lru_cache(maxsize=1)
def namespaced() -> bytes:
    """The filter for a program that has namespaces around it."""
    made = _begin()
    made.only("socket", _ARG0, _FAMILIES, 0xFFFFFFFF, errno.EAFNOSUPPORT)
    return _finish(made)


@lru_cache(maxsize=8)
def alone(*, network: bool, signals: bool, owner: bool) -> bytes:
    """The filter for a program that nothing but Landlock is around.

    Without `network` it can listen on a unix socket and accept, and connect to nothing. Without `signals` it can send
    none, not even to itself: for kernels whose Landlock does not keep them in. As the `owner` of files that are none of
    its business, it changes no mode, owner or time of any, though it seems so.
    """
    made = _begin()
    for name in _GROUPS if signals else _GROUPS + _SIGNALS:
        made.refuse(name)
    if owner:
        for name in _OWNERS:
            made.refuse(name, 0)
        for name in _ATTRIBUTES:
            made.refuse(name, errno.EOPNOTSUPP)
    if network:
        made.only("socket", _ARG0, _FAMILIES, 0xFFFFFFFF, errno.EAFNOSUPPORT)
    else:
        made.only("socket", _ARG0, (socket.AF_UNIX,), 0xFFFFFFFF, errno.ENETUNREACH)
        # A datagram needs no connection, and the address of sendmsg can't be seen from here.
        made.only("socket", _ARG1, (socket.SOCK_STREAM, socket.SOCK_SEQPACKET), _TYPE_MASK, errno.EPERM)
        made.refuse("connect")
    return _finish(made)


def _begin() -> _Filter:
    architecture, column = _ARCHITECTURES[platform.machine()]
    made = _Filter(column)
    made.code += [(_LOAD, 0, 0, _ARCH), (_EQUALS, 1, 0, architecture), (_RETURN, 0, 0, _KILL)]
    if column == 0:
        made.code += [(_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, _X32), _fail(errno.EPERM)]
    for name in _NEVER:
        made.refuse(name)
    made.refuse("clone3", errno.ENOSYS)  # its flags are out of a filter's sight; the C library falls back to clone
    made.refuse_when("clone", _ARG0, _CLONE_NEW)
    return made


def _finish(made: _Filter) -> bytes:
    return b"".join(struct.pack("=HBBI", *each) for each in [*made.code, (_RETURN, 0, 0, _ALLOW)])


def _fail(number: int) -> _Instruction:
    return (_RETURN, 0, 0, 0x50000 | number)  # SECCOMP_RET_ERRNO
