"""Code for snapshots, as a worker's tests place it."""

CODE = """
import os, random, sys, threading, uuid
import tidemill

app = tidemill.App("snapshots")
print("imported")

@app.cls(enable_memory_snapshot=True)
class Model:
    size: int = tidemill.parameter(default=3)

    @tidemill.enter()
    def late(self):
        self.late_pid, self.order = os.getppid(), (*self.order, "late")

    @tidemill.enter(snap=True)
    def early(self):
        self.pid, self.order = os.getpid(), ("early",)
        print("early")
        self.file = open(__file__)
        self.file.readline()
        self.capabilities = capabilities()
        if os.path.isdir("/.tidemill"):  # a sandbox, whose /tmp is its own
            with open("/tmp/written-early", "w") as file:
                file.write("early")
        random.seed(7)

    @tidemill.enter(snap=True)
    async def later_than_early(self):
        import asyncio
        await asyncio.sleep(0)
        self.order = (*self.order, "async")

    @tidemill.method()
    def look(self):
        return {
            "pid": self.pid, "mine": os.getpid(), "order": self.order, "late": self.late_pid == os.getppid(),
            "random": random.random(), "uuid": str(uuid.uuid4()), "secret": os.environ.get("SECRET"),
            "task": os.environ["TIDEMILL_TASK_ID"], "size": self.size, "cwd": os.getcwd(),
            "read": self.file.readline(), "path": [p for p in sys.path if sys.path.count(p) > 1],
            "tmp": os.environ["TMPDIR"], "uid": os.getuid(),
        }

    @tidemill.method()
    def held(self):
        import errno, pathlib
        from tidemill._container import syscalls
        try:
            syscalls.unshare(syscalls.NEWUSER)
        except OSError as error:
            refusal = errno.errorcode[error.errno]
        return {
            "early": self.capabilities, "here": capabilities(), "unshare": refusal,
            "written": pathlib.Path("/tmp/written-early").read_text(), "names": os.listdir("/.tidemill"),
            "pids": sum(name.isdigit() for name in os.listdir("/proc")),
            "ids": int(pathlib.Path("/proc/self/uid_map").read_text().split()[2]),
        }

def capabilities():
    with open("/proc/self/status") as file:
        told = dict(line.split(":", 1) for line in file)
    return sum(int(told[name], 16) for name in ("CapEff", "CapPrm", "CapBnd"))

def wait():
    threading.Event().wait()

@app.cls(enable_memory_snapshot=True)
class Threaded(Model):
    @tidemill.enter(snap=True)
    def begin(self):
        self.thread = threading.Thread(target=wait, name="sampler", daemon=True)
        self.thread.start()

    @tidemill.method()
    def alive(self):
        return self.thread.is_alive(), self.order

def f():
    return "imported" in globals() or "plain"

def fails():
    raise ValueError("not now")
"""
