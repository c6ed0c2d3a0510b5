"""The GLUE recipe: `run_glue.py` is the door, everything else its neighbours."""
