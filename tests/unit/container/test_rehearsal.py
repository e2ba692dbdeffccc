"""What a template does ahead of its containers leaves nothing in them but memory."""

import subprocess
import sys

PROGRAM = """
import asyncio, os, sys, threading
from tidemill._container import web
import fastapi.middleware.cors, fastapi.responses
before = sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []
from tidemill._container import rehearsal
after = sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []
print(before == after, threading.active_count(), asyncio.events._get_running_loop())
"""


def test_a_rehearsal_leaves_no_descriptor_thread_or_loop() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "1", "None"]
    assert not done.stderr
