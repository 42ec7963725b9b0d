"""The offline loop as Prefect flows, the demo, and the command line."""
