"""The Mosquitto broker of these tests."""

import pytest

from demos.mqtt.broker import MOSQUITTO, broker

__all__ = ["broker", "needs_mosquitto"]
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto: apt-get install mosquitto")
