@app.local_entrypoint()
def main():
    some_modal_function.remote()
