"""What the libraries say beside our own lines is kept off the terminal of a command."""

from __future__ import annotations

import logging
import warnings

import datasets
import transformers


def quiet_libraries() -> None:
    """Our own lines say what happens; loading bars and deprecation notes of the libraries would bury them."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.utils.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # which kernels it does without, what it casts
    for library in ("transformers", "accelerate"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=library)
