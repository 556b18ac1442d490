"""Messages of any kind at any moment, lost connections and false claims on resuming leave positions consistent."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from benchmarks.fuzz.targets import FuzzedSession
from neucodec_streaming.protocol.messages import Clear, End, Flush, Mark, encode_message


class Client(RuleBasedStateMachine):
    """Any event of a session, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = FuzzedSession()

    @rule(samples=st.integers(0, 2000))
    def sends_audio(self, samples: int) -> None:
        self.talk.hear(bytes(2 * samples))

    @rule(message=st.sampled_from([Flush(), Clear(), Mark("m"), Mark(7), End()]))
    def asks(self, message) -> None:
        self.talk.hear(encode_message(message))

    @rule(data=st.one_of(st.binary(max_size=9), st.text(max_size=20)))
    def sends_what_it_likes(self, data: bytes | str) -> None:
        self.talk.hear(data)

    @rule(count=st.integers(1, 5))
    def is_computed_for(self, count: int) -> None:
        for _ in range(count):
            self.talk.compute()

    @rule(count=st.integers(1, 5))
    def is_sent_to(self, count: int) -> None:
        for _ in range(count):
            self.talk.send()

    @rule()
    def loses_its_connection(self) -> None:
        self.talk.lose()

    @rule(lacks=st.integers(-1, 10), answers=st.one_of(st.none(), st.integers(0, 10)))
    def comes_back(self, lacks: int, answers: int | None) -> None:
        self.talk.resume(self.talk.server.output_position - lacks, answers)

    @invariant()
    def books_are_in_order(self) -> None:
        self.talk.check()

    def teardown(self) -> None:
        self.talk.finish()


TestClient = Client.TestCase
TestClient.settings = settings(max_examples=25, stateful_step_count=30, deadline=None, derandomize=True)
