"""The triggers, one file each, behind one protocol (`trigger.py`)."""
