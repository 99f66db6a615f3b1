"""What people look at: a table of verdicts, and a report with pictures."""
