"""The JavaScript module of the conversation's states, written from the Python table.

python -m tests.server.web.states_js
"""

from pathlib import Path

from neucodec_streaming.protocol.states import EVENT_NAMES, TRANSITIONS

PATH = Path(__file__).parents[3] / "server" / "web" / "states.js"
HEAD = """/**
 * The states of a conversation of `neucodec.v1`: state -> what may happen in it -> the state after. Payload is "input"
 * on its way up and "output" on its way down. Generated from streaming/protocol/states.py: do not edit, but run
 * `python -m tests.server.web.states_js`.
 */
export const TRANSITIONS = {
"""


def rendered() -> str:
    """The module's text."""
    lines = []
    for state, events in TRANSITIONS.items():
        lines.append(f"  {state.name.lower()}: {{\n")
        lines += [f'    {EVENT_NAMES[event]}: "{after.name.lower()}",\n' for event, after in events.items()]
        lines.append("  },\n")
    return HEAD + "".join(lines) + "};\n"


if __name__ == "__main__":
    PATH.write_text(rendered())
