"""The one thing that pyproject.toml has no words for: which folder of the repository is which package.

`streaming/` is the package itself, `server/` and `client/` are its subpackages; every folder in them with an
`__init__.py` is found here, so that adding one needs no entry anywhere.
"""

from setuptools import find_packages, setup

FOLDERS = {
    "neucodec_streaming": "streaming",
    "neucodec_streaming.server": "server",
    "neucodec_streaming.client": "client",
    "neucodec_streaming.docs": "docs",  # the page links to them
}

setup(
    package_dir=FOLDERS,
    packages=[
        name
        for package, folder in FOLDERS.items()
        for name in (package, *(f"{package}.{inner}" for inner in find_packages(folder)))
    ],
)
