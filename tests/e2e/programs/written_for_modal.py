import modal
from modal.exception import NotFoundError

app = modal.App("written-for-modal", image=modal.Image.debian_slim())


@app.function(retries=modal.Retries(max_retries=1), timeout=30)
def greet(name: str) -> str:
    assert not modal.is_local()
    return f"Hello, {name}! {NotFoundError.__module__}"


@app.local_entrypoint()
def main(name: str = "tide"):
    print(greet.remote(name))


if __name__ == "__main__":
    with app.run():
        print(greet.remote("script"))
