"""One framework a file (or folder); the file name is the registration (see `discovery`)."""
