"""Frames between a worker and a container: a 4-byte big-endian length, then one MessagePack array.

The first element is the kind; the tables below give the rest. Three sockets exist: the *template's*
(worker <-> template, asks for containers), a container's *runner* socket (worker <-> runner, the hot
path) and its *control* socket (worker <-> init: standard output, signals, exit, and the streams of further
processes: a `session` is a number that the worker gives to each, its frames are those of
`tidemill._wire.duplex`).

`chunk` is a number that the worker gives to each chunk it hands to a container. Payloads on these
sockets are always whole (`(format, bytes)`): the worker fetches and stores blobs.
"""

import struct
from enum import IntEnum

LENGTH = struct.Struct(">I")


class ToTemplate(IntEnum):
    """Worker -> template."""

    # With it come two descriptors, the runner's and init's socket ends:
    FORK = 1  # container id, whether it is ahead of its need: then after all imports and other requests
    TAKE = 2  # configuration, as in START; the first frame to a template that is to be a snapshot


class FromTemplate(IntEnum):
    """Template -> worker."""

    READY = 1  # pid of the template, what it says of its snapshot (`snapshot.take`, and "memory": bytes)
    FORKED = 2  # container id, pid of its init
    FAILED = 3  # container id, message
    REFUSED = 4  # why there can be no snapshot, whether that is so for good


class ToRunner(IntEnum):
    """Worker -> runner."""

    START = 1  # configuration: dict, see `Configuration`
    CHUNK = 2  # chunk, call, indices, attempt, [(format, bytes), ...], parent, root, collect, method
    CANCEL = 3  # chunk, index: stop this input (raises in sync code, cancels the task of async code)
    RECALL = 4  # chunk: give back what has not started
    CREDIT = 5  # chunk, index, pieces, bytes: how far a generator may go, cumulative
    STOP = 6  # finish what runs, run the exit hooks, end
    ANSWER = 7  # request number, ok, value: the answer to an ASK
    DELIVER = 8  # subscription number, subject, data, reply, headers
    RECONNECTED = 9  # nothing: the worker's own connection came back; messages may have been missed
    TERMINAL = 10  # device of the caller's terminal, TERM; or "", an encoded failure: the answer to INTERACT
    BATCH = 13  # [the arguments of a CHUNK, ...], each of one input: they run together
    RELEASED = 11  # nothing: the caller has its terminal back
    STREAM = 12  # chunk, frame: of the duplex stream of a web request


class FromRunner(IntEnum):
    """Runner -> worker."""

    READY = 1  # {"import": seconds, "enter": seconds, "generator": bool, "async": bool, "exits": bool}
    START_FAILED = 2  # an encoded failure (`tidemill._wire.failure`)
    OUTPUTS = 3  # chunk, [(index, status, format, bytes), ...], seconds executing, running index or -1
    PIECES = 4  # chunk, index, first piece number, [(format, bytes), ...]
    RETURNED = 5  # chunk, [index, ...]: will not run here; not started, or interrupted by a signal to stop
    LOG = 6  # stream (1 or 2), text, unix time, input id or ""
    ASK = 7  # request number, operation (see `tidemill._bus.socket`), arguments
    STOPPED = 8  # nothing: the exit hooks have run; the process ends now
    INTERACT = 9  # nothing: the input wants the caller's terminal
    RELEASE = 10  # nothing: it needs it no more
    STREAM = 11  # chunk, frame: of the duplex stream of a web request; the first one opens it
    LIMIT = 12  # inputs that may run at once from now on; 0: it takes no more, and ends after what it has
    NOTE = 13  # input id: of a web request that is to be recorded, because somebody may know of it


class ToInit(IntEnum):
    """Worker -> init."""

    SIGNAL = 1  # signal number, to the runner
    KILL = 2  # nothing: SIGKILL to every descendant, then end
    EXECUTE = 3  # session, arguments, variables, working directory, (rows, columns) of a terminal or None
    TERMINAL = 4  # session, rows, columns: a terminal for the runner
    STREAM = 5  # session, frame
    HANG_UP = 6  # session: nobody is at the other end any more


class FromInit(IntEnum):
    """Init -> worker."""

    STARTED = 1  # pid of the runner
    OUTPUT = 2  # stream (1 or 2), bytes, input id or ""
    EXITED = 3  # exit status of the runner: >= 0 a status, < 0 the signal that ended it
    STREAM = 4  # session, frame; the last word of a process is its exit status
    TERMINAL = 5  # session, device of the terminal or "", what went wrong
