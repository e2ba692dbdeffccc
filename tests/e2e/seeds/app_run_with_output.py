with modal.enable_output():
    with app.run():
        some_modal_function.remote()
