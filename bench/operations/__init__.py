"""What operators ask: what a run, a stream and an idle process cost, and how soon things happen."""
