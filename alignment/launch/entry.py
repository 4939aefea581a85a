"""The command line of a run: arguments in, exit code out.

Exit codes: 0 done, 2 a mistake in what was given (one or two lines on stderr), 130 Ctrl-C, 143 SIGTERM after a
checkpoint. A traceback, and exit code 1, means a defect of the toolkit.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Sequence
from typing import NoReturn

from alignment.disk import full_disk
from alignment.errors import Interrupted, UserError, impossible_name
from alignment.imports import only_named_on
from alignment.launch.processes import lost_process, rank, use_all_cores

RANK_0_FIRST_SECONDS = 3.0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the options)")


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Options and overrides, in any order. Raises UserError for an unknown option."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job"])
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-cd", "--config-dir", dest="config_dir")
    return parser.parse_intermixed_args(list(argv))


def main(argv: Sequence[str] | None = None, run: str | None = None) -> int:
    """Runs one command line and returns its exit code. `run` names the program in --help."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        with only_named_on(argv, "add allow=[{place}] to the command line"):
            return _dispatch(argv, run or _called_as())
    except UserError as error:
        if wants_traceback(argv):
            traceback.print_exc()
        _report(error)
        return 2
    except OSError as error:
        if not (named := impossible_name(error)):
            raise
        _report(named)
        return 2
    except Interrupted:
        return 143
    except KeyboardInterrupt:
        if rank() == 0:
            print("interrupted", file=sys.stderr)
        return 130


def _dispatch(argv: Sequence[str], run: str) -> int:
    arguments = parse_arguments(argv)
    if arguments.help:
        from alignment.launch.assets import catalogue
        from alignment.launch.help import help_text

        print(help_text(catalogue(arguments.config_dir), run), end="")
        return 0

    from alignment.launch.compose import Composer

    composer = Composer.create(arguments.config_dir)
    if arguments.cfg:
        from omegaconf import OmegaConf

        from alignment.launch.interpolation import without_environment

        if arguments.resolve:
            composer.config(arguments.overrides)  # reports an interpolation that leads nowhere
        with without_environment():
            print(OmegaConf.to_yaml(composer.tree(arguments.overrides), resolve=arguments.resolve), end="")
        return 0
    use_all_cores()
    if arguments.multirun:
        from alignment.launch import sweep

        jobs = composer.jobs(arguments.overrides)
        planned = sweep.plan(jobs, [composer.config(job) for job in jobs], on_rank_0=rank() == 0)
        options = ["--config-dir", arguments.config_dir] if arguments.config_dir else []
        return sweep.Sweep(planned, lambda overrides: sweep.command(overrides, options)).run()

    config = composer.config(arguments.overrides)
    from alignment.launch.run import run as run_once

    try:
        run_once(config, list(arguments.overrides))
    except (UserError, Interrupted):
        raise
    except Exception as error:
        named = _no_defect(error, config.output_dir)
        if named is None:
            raise
        raise named from error
    return 0


def _no_defect(error: Exception, folder: str | None) -> UserError | None:
    """What to say of an error that is the machine's: another process gone, a disk full; None where it is neither."""
    lost, full = lost_process(error), full_disk(error)
    resume = f"resume={folder} goes on from its last checkpoint" if folder else "launch the run again"
    if lost is not None:
        return UserError(
            f"rank {rank()} has lost another process of this run ({lost}); what ended that one stands above, or in the "
            f"launcher's report below\nMend: {resume}"
        )
    if full is not None:
        place = getattr(error, "filename", None) or folder
        return UserError(f"cannot write to {place}: {full}\nMend: free some space; {resume}")
    return None


def wants_traceback(argv: Sequence[str]) -> bool:
    """`traceback=true` counts even where nothing could be composed; ALIGN_TRACEBACK=1 says it for every command."""
    return os.environ.get("ALIGN_TRACEBACK") == "1" or any(a.lower() in ("traceback=true", "traceback=1") for a in argv)


def _report(error: UserError) -> None:
    """Prints the error once. Rank 0 has most errors too; one that it has not is printed by the rank that has it."""
    if rank() != 0:
        time.sleep(RANK_0_FIRST_SECONDS)  # where rank 0 has failed as well, the launcher ends this process meanwhile
        print(f"error on rank {rank()}: {error}", file=sys.stderr, flush=True)
        return
    print(f"error: {error}", file=sys.stderr, flush=True)


def _called_as() -> str:
    name = os.path.basename(sys.argv[0])
    return f"python {name}" if name.endswith("train.py") else "python -m alignment.launch"
