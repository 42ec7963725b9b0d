"""Bootstrap, staleness curves, half-lives, the choice of a policy, attribution."""
