"""Several processes of one gateway, one per core: the supervisor, and the end of its link in each worker."""
