"""What the commands are given as text: models, data, selections."""
