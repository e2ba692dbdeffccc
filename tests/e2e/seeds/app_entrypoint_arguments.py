@app.local_entrypoint()
def main(foo: int, bar: str):
    some_modal_function.call(foo, bar)
