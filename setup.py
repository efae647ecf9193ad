"""Adds the files of which `segsemi init` makes a project, listed in project.txt, to the wheel: the repository's own."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

LIST = Path("segsemi/commands/project.txt")


class BuildWithProject(build_py):
    """Copies the files to segsemi/project/."""

    def files(self) -> list[str]:
        return sorted(str(path) for line in LIST.read_text().split() for path in Path().glob(line))

    def get_source_files(self) -> list[str]:  # for the source distribution
        return [*super().get_source_files(), *self.files()]

    def run(self) -> None:
        super().run()
        for name in [] if self.editable_mode else self.files():
            target = Path(self.build_lib, "segsemi/project", name)
            self.mkpath(str(target.parent))
            self.copy_file(name, str(target))


setup(cmdclass={"build_py": BuildWithProject})
