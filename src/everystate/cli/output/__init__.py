"""What the commands give back: exit codes, messages, progress, JSON and tables."""
