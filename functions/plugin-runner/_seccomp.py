"""A seccomp filter: the kernel refuses a worker the system calls that no plugin needs.

Installed where the kernel and the surroundings allow it. Nothing relies on it.

Source: linux/seccomp.h, linux/filter.h; numbers of system calls from the kernel's tables for each machine.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct

_PR_SET_SECCOMP = 22
_MODE_FILTER = 2
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000

_LOAD, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_AT_NUMBER, _AT_MACHINE, _AT_FIRST_ARGUMENT = 0, 4, 16

_NEW_NAMESPACES = 0x7E020080

# name: number on x86_64, on aarch64; None where the machine does not have it.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # Into other processes.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    # Out of the group in which the handler ends a plugin with all it started.
    "setsid": (112, 157),
    "setpgid": (109, 154),
    # Another view of the system.
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    # The kernel itself.
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "syslog": (103, 116),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "personality": (135, 92),
}

# Allowed for the process itself (first argument 0), refused for any other.
_ONLY_FOR_ITSELF = {
    "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
}

_CLONE, _CLONE3, _SOCKET = (56, 220), (435, 435), (41, 198)

# machine: (index into the pairs above, what the kernel calls it)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_libc = ctypes.CDLL(None, use_errno=True)


def install(network: bool) -> bool:
    """Confines the calling process for good, which must have set no_new_privs; whether it took.

    Without ``network`` only sockets between processes of one machine can be made.
    """
    program = _program(os.uname().machine, network)
    if program is None:
        return False
    code = ctypes.create_string_buffer(program, len(program))
    filter_of_kernel = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    nothing = ctypes.c_ulong(0)
    mode = ctypes.c_ulong(_MODE_FILTER)
    return _libc.prctl(_PR_SET_SECCOMP, mode, filter_of_kernel, nothing, nothing) == 0


def _program(machine: str, network: bool) -> bytes | None:
    if machine not in _MACHINES:
        return None
    index, kernels_name = _MACHINES[machine]
    refuse = _step(_RETURN, _ERRNO | errno.EPERM)
    steps = [
        _step(_LOAD, _AT_MACHINE),
        _step(_JUMP_EQUAL, kernels_name, 1, 0),
        refuse,
        _step(_LOAD, _AT_NUMBER),
    ]
    if machine == "x86_64":
        # The same calls under the numbers of the x32 interface.
        steps += [_step(_JUMP_ABOVE, 0x40000000, 0, 1), refuse]
    for pair in _REFUSED.values():
        if pair[index] is not None:
            steps += [_step(_JUMP_EQUAL, pair[index], 0, 1), refuse]
    # Its arguments lie in memory, where a filter cannot look; the C library goes back to clone.
    steps += [_step(_JUMP_EQUAL, _CLONE3[index], 0, 1), _step(_RETURN, _ERRNO | errno.ENOSYS)]
    steps += [
        _step(_JUMP_EQUAL, _CLONE[index], 0, 4),
        _step(_LOAD, _AT_FIRST_ARGUMENT),
        _step(_JUMP_SET, _NEW_NAMESPACES, 0, 1),
        refuse,
        _step(_RETURN, _ALLOW),
    ]
    for pair in _ONLY_FOR_ITSELF.values():
        steps += [
            _step(_JUMP_EQUAL, pair[index], 0, 4),
            _step(_LOAD, _AT_FIRST_ARGUMENT),
            _step(_JUMP_EQUAL, 0, 1, 0),
            refuse,
            _step(_RETURN, _ALLOW),
        ]
    if not network:
        steps += [
            _step(_JUMP_EQUAL, _SOCKET[index], 0, 4),
            _step(_LOAD, _AT_FIRST_ARGUMENT),
            _step(_JUMP_EQUAL, int(socket.AF_UNIX), 1, 0),
            refuse,
            _step(_RETURN, _ALLOW),
        ]
    steps.append(_step(_RETURN, _ALLOW))
    return b"".join(steps)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("@HBBI", code, if_true, if_false, value)
