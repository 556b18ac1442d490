"""The one thing that pyproject.toml has no words for: which folder of the repository is which package.

`streaming/` is the package itself, `server/` and `client/` are its subpackages; every folder in them with an
`__init__.py` is found here, so that adding one needs no entry anywhere.
"""

from glob import glob

from setuptools import find_packages, setup

FOLDERS = {
    "neucodec_streaming": "streaming",
    "neucodec_streaming.server": "server",
    "neucodec_streaming.client": "client",
}

setup(
    package_dir=FOLDERS,
    packages=[
        name
        for package, folder in FOLDERS.items()
        for name in (package, *(f"{package}.{inner}" for inner in find_packages(folder)))
    ],
    # The web page links to them (server/http/pages.py).
    data_files=[("share/doc/neucodec-streaming", ["README.md", *sorted(glob("docs/*.md"))])],
)
