"""The revision of the pipeline's code and params, for reports and tables."""

import subprocess

from segsemi.core.errors import UserError

PIPELINE = ("segsemi", "stages", "dvc.yaml", "params.yaml", "requirements.txt")  # what decides results


def git(*arguments: str) -> str:
    """Return the output of a git command in this repository.

    Raises:
        UserError: git is missing or fails.
    """
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"git cannot be run ({error}); install it") from None
    if done.returncode:
        raise UserError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def pipeline_revision() -> str:
    """Return the last commit that changed the pipeline, and whether it has been changed since.

    This is not HEAD, which moves when only the report is committed.
    """
    try:
        changes = " and changes" if git("status", "--porcelain", "--", *PIPELINE) else ""
        return f"git {git('log', '-1', '--format=%h', '--', *PIPELINE).strip()}{changes}"
    except UserError:
        return "not in git"
