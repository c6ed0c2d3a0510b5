"""The GLUE recipe: `run_glue.py` and `run_glue_no_trainer.py` are the doors, all else their neighbours."""
