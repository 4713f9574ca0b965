"""Documents that are open: a room for each, in each process, and what its members say to each other."""
