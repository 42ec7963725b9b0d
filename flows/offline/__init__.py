"""One turn of the offline loop as plain functions, free of policies and of Prefect's flows."""
