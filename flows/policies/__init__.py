"""When to retrain what: policies as YAML files, their triggers, the same engine live and in replay."""
