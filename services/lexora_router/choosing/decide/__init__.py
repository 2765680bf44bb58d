"""What a task is about, and which model fits it: decisions without I/O and without a clock."""
