"""Builds the C parsers as one static library and the Cython modules on top of it.

Environment: TBFAST_SANITIZE=1 builds with AddressSanitizer and UBSan; TBFAST_EXT=a,b builds only
those modules; TBFAST_WERROR=1 turns every warning into an error (CI); TBFAST_TAKE_BUILT=1 puts
modules that were built in place into a wheel, if nothing they are made of is newer.
"""

import os
import shutil
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
SANITIZE = os.environ.get("TBFAST_SANITIZE") == "1"
WERROR = ["-Werror"] if os.environ.get("TBFAST_WERROR") == "1" else []
TAKE_BUILT = os.environ.get("TBFAST_TAKE_BUILT") == "1"
ONLY = {name for name in os.environ.get("TBFAST_EXT", "").split(",") if name}

SANITIZERS = ["-fsanitize=address,undefined"]
OPTIMISE = (
    ["-O1", "-g", "-fno-omit-frame-pointer", *SANITIZERS, "-fno-sanitize-recover=all"]
    if SANITIZE
    else ["-O3", "-g1"]
)
LINK = SANITIZERS if SANITIZE else []
C_FLAGS = ["-std=c11", "-fPIC", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", *OPTIMISE, *WERROR]
# Generated C is not written by us: conversions and unused helpers in it are Cython's business.
CYTHON_FLAGS = [
    "-std=c11", "-Wall", "-Wno-unused-function", "-Wno-unused-but-set-variable",
    "-Wno-maybe-uninitialized", *OPTIMISE, *WERROR,
]  # fmt: skip

C_SOURCES = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "ext/c").glob("*.c"))
C_HEADERS = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "ext/c").glob("*.h"))


def modules() -> list[Extension]:
    """One extension per .pyx below ext/tbfast/_ext."""
    found = []
    for pyx in sorted((ROOT / "ext/tbfast/_ext").glob("*.pyx")):
        if ONLY and pyx.stem not in ONLY:
            continue
        found.append(
            Extension(
                f"tbfast._ext.{pyx.stem}",
                [str(pyx.relative_to(ROOT))],
                include_dirs=["ext/c"],
                depends=[*C_SOURCES, *C_HEADERS],
                extra_compile_args=CYTHON_FLAGS,
                extra_link_args=LINK,
            )
        )
    return found


class BuildExt(build_ext):
    """Builds the C library first, also for an in-place build."""

    def run(self) -> None:
        clib = self.get_finalized_command("build_clib")
        clib.force = bool(self.force)
        clib.compiler = self.compiler  # after `build` ran it this is an object, not a name
        clib.build_temp = self.build_temp
        clib.build_clib = self.build_temp
        clib.run()
        self.library_dirs.append(clib.build_clib)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        built = ROOT / self.get_ext_filename(ext.name)
        made_of = [ROOT / "setup.py", *(ROOT / path for path in (*ext.sources, *ext.depends))]
        if (
            TAKE_BUILT
            and not self.inplace
            and built.exists()
            and all(path.stat().st_mtime <= built.stat().st_mtime for path in made_of)
        ):
            target = Path(self.get_ext_fullpath(ext.name))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(built, target)
        else:
            super().build_extension(ext)


setup(
    libraries=[
        (
            "tbf",
            {
                "sources": C_SOURCES,
                "include_dirs": ["ext/c"],
                "cflags": C_FLAGS,
                "obj_deps": {"": C_HEADERS, **{src: [src] for src in C_SOURCES}},
            },
        )
    ],
    ext_modules=cythonize(
        modules(),
        include_path=["ext"],
        build_dir="build/cython",
        nthreads=os.cpu_count() or 1,
        compiler_directives={
            "language_level": "3",
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
            "embedsignature": False,
        },
    ),
    cmdclass={"build_ext": BuildExt},
)
