import modal

app_a = modal.App("a")


@app_a.function()
def foo():
    return "foo of a"


app_b = modal.App("b", tags={"team": "tide"})


@app_b.function()
def bar():
    return "bar of b"


app_a.include(app_b)


@app_a.local_entrypoint()
def main():
    # use function declared on the included app
    print(bar.remote())
    print(foo.remote())


@app_a.local_entrypoint()
def with_arguments(foo: int, bar: str):
    print(foo, bar)


if __name__ == "__main__":
    with modal.enable_output():
        with app_a.run():
            print(foo.remote())
