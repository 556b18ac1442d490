"""The JavaScript module of the conversation's states, written from the Python table.

python -m tests.server.web.states_js
"""

from pathlib import Path

from neucodec_streaming.protocol.states import EVENT_NAMES, TRANSITIONS

PATH = Path(__file__).parents[3] / "server" / "web" / "states.js"
HEAD = """/**
 * The states of a `neucodec.v1` conversation: state -> event -> next state. "input" is payload from the client,
 * "output" payload from the server. Generated from streaming/protocol/states.py by
 * `python -m tests.server.web.states_js`: do not edit.
 */
export const TRANSITIONS = {
"""


def rendered() -> str:
    lines = []
    for state, events in TRANSITIONS.items():
        lines.append(f"  {state.name.lower()}: {{\n")
        lines += [f'    {EVENT_NAMES[event]}: "{after.name.lower()}",\n' for event, after in events.items()]
        lines.append("  },\n")
    return HEAD + "".join(lines) + "};\n"


if __name__ == "__main__":
    PATH.write_text(rendered())
