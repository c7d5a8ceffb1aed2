"""Confines a process to reading the archive's files, with Landlock and seccomp."""

import ctypes
import os
import platform
import struct
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

PROTECTIONS: Final = (
    "a worker reads no file but those that it is given",
    "a worker connects to no network",
    "a worker creates no file and opens none for writing",
)
"""What `confine` enforces if the kernel supports it."""

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2

# Landlock, include/uapi/linux/landlock.h; the numbers of its calls are the same on all architectures.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_ALL_OF_FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}  # by ABI
_TCP, _SCOPES = 0b11, 0b11  # bind and connect; abstract sockets and signals
_TCP_ABI, _SCOPES_ABI = 4, 6

# System calls by their numbers, arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
_OPEN = {"x86_64": {2: 1, 257: 2}, "aarch64": {56: 2}}
"""open and openat, with the position of their flags among the arguments."""
_REFUSED = {
    "x86_64": {
        *(41, 42, 43, 49, 50, 53, 288),  # socket, connect, accept, bind, listen, socketpair, accept4
        *(59, 322, 101, 310, 311),  # execve, execveat, ptrace, process_vm_readv, process_vm_writev
        *(76, 82, 83, 84, 85, 86, 87, 88, 90, 92, 94, 133, 188),  # truncate, rename, mkdir … mknod, setxattr
        *(258, 259, 260, 263, 264, 265, 266, 268, 316),  # mkdirat … renameat2
        *(165, 166, 248, 249, 250, 304, 321, 323),  # mount, umount2, keys, open_by_handle_at, bpf, userfaultfd
        *(425, 426, 427, 434, 437, 438, 452),  # io_uring, pidfd_open, openat2, pidfd_getfd, fchmodat2
    },
    "aarch64": {
        *(198, 199, 200, 201, 202, 203, 242),
        *(221, 281, 117, 270, 271),
        *(5, 33, 34, 35, 36, 37, 38, 45, 53, 54, 276),
        *(39, 40, 217, 218, 219, 265, 280, 282),
        *(425, 426, 427, 434, 437, 438, 452),
    },
}
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # include/uapi/linux/audit.h
_X32 = 0x40000000
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_TMPFILE", 0) & ~os.O_DIRECTORY
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with EPERM


def confine(readable: Iterable[str]) -> tuple[bool, bool, bool]:
    """Confine this process for good, before it starts threads; returns which of `PROTECTIONS` hold.

    `readable` are files and folders, recursively; Python's and the system's libraries stay readable.
    """
    if sys.platform != "linux" or _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False, False, False
    abi = _landlock([*_libraries(), *readable])
    filtered = _seccomp()
    return abi >= 1, filtered or abi >= _TCP_ABI, filtered or abi >= 1


def _libraries() -> Iterator[str]:
    """Folders from which code is loaded while a file is read: libraries, and `pipeline` of this repository."""
    paths = sysconfig.get_paths()
    yield from {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    yield from (f"{sys.base_prefix}/lib", str(Path(__file__).parents[1]))
    yield from ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/dev/null")


def _landlock(readable: Iterable[str]) -> int:
    """Restrict this process to reading `readable`; returns Landlock's ABI, 0 if the kernel has none."""
    abi = int(_libc.syscall(_CREATE_RULESET, None, 0, 1))
    if abi < 1:
        return 0
    handled = struct.pack("=QQQ", _ALL_OF_FILES.get(abi, _ALL_OF_FILES[5]), _TCP, _SCOPES)
    length = 24 if abi >= _SCOPES_ABI else 16 if abi >= _TCP_ABI else 8
    ruleset = int(_libc.syscall(_CREATE_RULESET, handled, length, 0))
    if ruleset < 0:
        return 0
    try:
        for path in readable:
            with suppress(OSError):  # a library folder or file that does not exist here
                _allow(ruleset, path)
        return 0 if _libc.syscall(_RESTRICT_SELF, ruleset, 0) else abi
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        access = _READ_FILE | (_READ_FOLDER if os.path.isdir(path) else 0)  # noqa: PTH112 - faster for many files
        _libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", access, descriptor), 0)
    finally:
        os.close(descriptor)


def _seccomp() -> bool:
    """Make system calls that write, connect or reach other processes fail with EPERM; False if unsupported."""
    machine = platform.machine()
    if machine not in _ARCHITECTURE:
        return False
    program = b"".join(_filter(machine))
    code = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    return bool(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, described, 0, 0) == 0)


def _filter(machine: str) -> Iterator[bytes]:
    """Instructions of classic BPF over `struct seccomp_data`: number at 0, architecture at 4, arguments from 16 on."""
    refused = struct.pack("HBBI", 0x06, 0, 0, _REFUSE)

    def load(offset: int) -> bytes:
        return struct.pack("HBBI", 0x20, 0, 0, offset)

    yield load(4)
    yield struct.pack("HBBI", 0x15, 1, 0, _ARCHITECTURE[machine])
    yield refused
    yield load(0)
    yield struct.pack("HBBI", 0x35, 0, 1, _X32)  # greater or equal
    yield refused
    for number in sorted(_REFUSED[machine]):
        yield struct.pack("HBBI", 0x15, 0, 1, number)
        yield refused
    for number, flags in _OPEN[machine].items():
        yield struct.pack("HBBI", 0x15, 0, 3, number)
        yield load(16 + 8 * flags)
        yield struct.pack("HBBI", 0x45, 0, 1, _WRITING)  # any of these bits
        yield refused
        yield load(0)
    yield struct.pack("HBBI", 0x06, 0, 0, _ALLOW)
