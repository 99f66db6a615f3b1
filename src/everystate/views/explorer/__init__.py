"""The explorer: a trace in the browser, from the whole record down to single steps.

`source` reads what is shown, `session` knows what is chosen, `pictures` draws it, `app` is the
page, and `serve` is `everystate.explore`, which hands the page out on this machine.
"""
