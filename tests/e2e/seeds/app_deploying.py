import modal

app = modal.App("my-app")
other = modal.App("other", tags={"team": "tide", "cost": "low"})


@app.function()
def some_modal_function(x: int = 1):
    return f"some result of {x}"


app.include(other)


@app.local_entrypoint()
def main():
    print(some_modal_function.remote())


# The reference deploys like this, from a script that is run directly:
if __name__ == "__main__":
    with modal.enable_output():
        app.deploy()
