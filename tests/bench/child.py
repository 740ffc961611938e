"""Runs a command; prints the seconds it took, those of CPU, its peak memory in bytes, its status.

A small process between the bench and what it measures: Linux lets a process inherit the peak
memory of the one that started it, and imports would cost time.
"""

import json
import os
import sys
import time

began = time.perf_counter()
to_stderr = [(os.POSIX_SPAWN_DUP2, 2, 1)]
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=to_stderr)
_, status, usage = os.wait4(pid, 0)
took = {
    "wall": time.perf_counter() - began,
    "cpu": usage.ru_utime + usage.ru_stime,
    "peak": usage.ru_maxrss * 1024,
    "exitcode": os.waitstatus_to_exitcode(status),
}
print(json.dumps(took))
