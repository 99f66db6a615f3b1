"""Where many sequences come from: one kind of data set a file."""
