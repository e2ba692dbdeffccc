if __name__ == "__main__":
    with app.run():
        some_modal_function.remote()
