"""The code of the audio thread as one script, and as text for bundles, written from its modules.

python -m tests.server.web.worklet_js
"""

import json
import re
from pathlib import Path

WEB = Path(__file__).parents[3] / "server" / "web"
MODULES = ("resampler.js", "jitter.js", "microphone-worklet.js", "speaker-worklet.js")
HEAD = (
    "/** The code of the audio thread in one file. Generated: do not edit, but run"
    " `python -m tests.server.web.worklet_js`. */\n"
)


def script() -> str:
    """Concatenates the modules, without imports, exports and comments."""
    text = "".join((WEB / name).read_text() for name in MODULES)
    text = re.sub(r"^\s*/\*\*.*?\*/\n", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^import .*\n", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{2,}", "\n", re.sub(r"^export ", "", text, flags=re.MULTILINE)).lstrip()


def rendered() -> dict[Path, str]:
    return {
        WEB / "worklet.js": HEAD + script(),
        WEB / "worklet-text.js": f"{HEAD}/** @type {{string}} */\nexport const WORKLET = {json.dumps(script())};\n",
    }


if __name__ == "__main__":
    for path, text in rendered().items():
        path.write_text(text)
