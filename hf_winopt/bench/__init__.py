"""What a step of an optimizer costs on this machine: time, launches, bytes, beside torch's AdamW and a plain copy."""

from .comparison import BASELINES, Row, measure
from .memory import check_memory
from .plan import DTYPES, Plan, default_backends, make_plan
from .results import Result, load, save
from .shapes import SHAPES, shapes_of
from .table import LEGEND, STEP_TIME, print_times, report

__all__ = [
    "BASELINES",
    "DTYPES",
    "LEGEND",
    "SHAPES",
    "STEP_TIME",
    "Plan",
    "Result",
    "Row",
    "check_memory",
    "default_backends",
    "load",
    "make_plan",
    "measure",
    "print_times",
    "report",
    "save",
    "shapes_of",
]
