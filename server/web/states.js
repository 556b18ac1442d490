/**
 * The states of a conversation of `neucodec.v1`: state -> what may happen in it -> the state after. Payload is "input"
 * on its way up and "output" on its way down. Generated from streaming/protocol/states.py: do not edit, but run
 * `python -m tests.server.web.states_js`.
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
