import modal

app = modal.App.lookup("my-app", create_if_missing=True)
print(app.app_id)
print(app.get_dashboard_url())
app.set_tags({"team": "moon"})
print(app.get_tags())
print(modal.Function.from_name("my-app", "some_modal_function").remote(2))
