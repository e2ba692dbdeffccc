"""Many calls of a function that needs a GPU, and of one that needs none."""

import os
import threading
import time
from pathlib import Path

import tidemill

app = tidemill.App("gpu-load")


@app.function(gpu="L4", cpu=0.125, max_containers=2)
def on_gpu(folder: str, number: int) -> tuple[int, str]:
    Path(folder, f"gpu-{number}").touch()
    time.sleep(0.05)
    while number >= 6 and not Path(folder, "go").exists():
        time.sleep(0.02)
    return number, os.environ["CUDA_VISIBLE_DEVICES"]


@app.function(cpu=0.125, max_containers=2)
def without(number: int) -> tuple[int, str]:
    time.sleep(0.02)
    return number, os.environ["CUDA_VISIBLE_DEVICES"]


@app.local_entrypoint()
def load(folder: str) -> None:
    found: dict[str, list[tuple[int, str]]] = {}

    def ask() -> None:
        found["without"] = list(without.map(range(40)))

    thread = threading.Thread(target=ask)
    thread.start()
    found["on"] = list(on_gpu.map([folder] * 40, range(40)))
    thread.join()
    assert [number for number, _ in found["on"]] == list(range(40))
    assert [number for number, _ in found["without"]] == list(range(40))
    assert {device for _, device in found["on"]} <= {"0", "1"}
    assert {device for _, device in found["without"]} == {""}
    print(f"{len(found['on'])} on GPUs, {len(found['without'])} without")
