"""What the facade, the router and the command agree on, written once. Imports none of them."""
