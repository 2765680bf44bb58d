"""The `lexora` command: the composition root, the one place that imports both the router and the facade."""
