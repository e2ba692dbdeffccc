"""A script written for Modal, unchanged. `tidemill run examples/import_modal.py`"""

import modal

app = modal.App("written-for-modal")


@app.function(timeout=60, retries=modal.Retries(max_retries=2))
def greet(name: str) -> str:
    return f"Hello, {name}!"


@app.local_entrypoint()
def main(name: str = "tide") -> None:
    print(greet.remote(name))
