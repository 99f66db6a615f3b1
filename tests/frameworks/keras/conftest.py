"""Keras' tests need Keras 3; they run on the back end that it is set to."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
