"""The facade's own HTTP/1.1 server side: connections, requests in order, and the framing of answers."""
