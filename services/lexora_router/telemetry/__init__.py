"""What is counted, measured and written down about calls."""
