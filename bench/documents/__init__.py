"""Documents that are edited together: what that costs, beside a relay that keeps nothing."""
