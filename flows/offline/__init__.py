"""One turn of the offline loop as plain functions, and the Prefect flows and deployments that run them."""
