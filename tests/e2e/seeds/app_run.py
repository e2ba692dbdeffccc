with app.run():
    some_modal_function.remote()
