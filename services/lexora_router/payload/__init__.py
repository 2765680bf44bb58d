"""What bodies say: requests, answers and the events of streams, read only as far as a decision needs."""
