"""The command ``everystate``: each module here but ``main`` is a command (see `main`)."""
