/**
 * The states of a `neucodec.v1` conversation: state -> event -> next state. "input" is payload from the client,
 * "output" payload from the server. Generated from streaming/protocol/states.py by
 * `python -m tests.server.web.states_js`: do not edit.
 */
export const TRANSITIONS = {
  opening: {
    ready: "streaming",
    error: "closed",
    loss: "closed",
  },
  streaming: {
    input: "streaming",
    output: "streaming",
    flush: "streaming",
    flushed: "streaming",
    clear: "streaming",
    cleared: "streaming",
    mark: "streaming",
    marked: "streaming",
    prime: "streaming",
    primed: "streaming",
    stats: "streaming",
    end: "ending",
    error: "closed",
    loss: "lost",
  },
  ending: {
    output: "ending",
    flushed: "ending",
    cleared: "ending",
    marked: "ending",
    primed: "ending",
    stats: "ending",
    done: "done",
    error: "closed",
    loss: "lost_ending",
  },
  lost: {
    input: "lost",
    flush: "lost",
    clear: "lost",
    mark: "lost",
    prime: "lost",
    end: "lost_ending",
    ready: "streaming",
    error: "closed",
    loss: "lost",
  },
  lost_ending: {
    ready: "ending",
    error: "closed",
    loss: "lost_ending",
  },
  done: {
    loss: "lost_ending",
  },
  closed: {
    loss: "closed",
  },
};
