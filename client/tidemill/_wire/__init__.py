"""What crosses a process: ids, subjects, messages, payloads and failures.

Everything here is plain standard library plus `msgpack`, because containers import it too.
"""
