import modal

app = modal.App()


@app.function(
    secrets=[modal.Secret.from_name("some_secret")],
    schedule=modal.Period(days=1),
)
def foo():
    import os

    return f"the secret says {os.environ['WORD']}"


if __name__ == "__main__":
    with modal.enable_output():
        app.deploy(name="with-a-secret")
