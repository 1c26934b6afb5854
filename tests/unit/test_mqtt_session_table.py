"""Every packet type in every state of the session does something defined: the whole table."""

import pytest

from tbfast.engine.mqtt.settings import State
from tbfast.model import mqtt as m
from tests.support.mqtt_host import KNOWN, Host, connect, opened

PACKETS: dict[str, m.Packet] = {
    "CONNECT": connect(5),
    "CONNACK": m.Connack(False, 0),
    "PUBLISH": m.Publish("v2/t", b'{"a":1}', 1, packet_id=7),
    "PUBACK": m.Puback(7),
    "PUBREC": m.Pubrec(7),
    "PUBREL": m.Pubrel(7),
    "PUBCOMP": m.Pubcomp(7),
    "SUBSCRIBE": m.Subscribe(7, (m.Subscription("v2/a"),)),
    "SUBACK": m.Suback(7, (0,)),
    "UNSUBSCRIBE": m.Unsubscribe(7, ("v2/a",)),
    "UNSUBACK": m.Unsuback(7, (0,)),
    "PINGREQ": m.Pingreq(),
    "PINGRESP": m.Pingresp(),
    "DISCONNECT": m.Disconnect(),
    "AUTH": m.Auth(),
}


def _new() -> Host:
    return Host(who="later")


def _authenticating() -> Host:
    host = Host(who="later")
    host.write(connect(5))
    return host


def _open() -> Host:
    return opened(5)


def _closing() -> Host:
    host = opened(5)
    host.write(m.Publish("v2/t", b'{"a":1}', 1, packet_id=1))
    host.shutdown(m.ReasonCode.SESSION_TAKEN_OVER)
    return host


def _closed() -> Host:
    host = opened(5)
    host.shutdown(m.ReasonCode.SESSION_TAKEN_OVER)
    host.replies()
    return host


STATES = {
    State.NEW: _new,
    State.AUTHENTICATING: _authenticating,
    State.OPEN: _open,
    State.CLOSING: _closing,
    State.CLOSED: _closed,
}

# What the packet does to an open session: the state it leads to, and the answer sent at once.
OPEN = {
    "CONNECT": (State.CLOSED, [m.Disconnect]),
    "CONNACK": (State.OPEN, []),
    "PUBLISH": (State.OPEN, []),  # answered by the commit
    "PUBACK": (State.OPEN, []),
    "PUBREC": (State.OPEN, []),
    "PUBREL": (State.OPEN, [m.Pubcomp]),
    "PUBCOMP": (State.OPEN, []),
    "SUBSCRIBE": (State.OPEN, [m.Suback]),
    "SUBACK": (State.OPEN, []),
    "UNSUBSCRIBE": (State.OPEN, [m.Unsuback]),
    "UNSUBACK": (State.OPEN, []),
    "PINGREQ": (State.OPEN, [m.Pingresp]),
    "PINGRESP": (State.OPEN, []),
    "DISCONNECT": (State.CLOSED, [m.Disconnect]),
    "AUTH": (State.OPEN, []),
}


def test_table_is_complete() -> None:
    assert set(STATES) == set(State)
    assert {type(p) for p in PACKETS.values()} == set(m.PACKET_TYPES)
    assert set(OPEN) == set(PACKETS)


@pytest.mark.parametrize("name", PACKETS)
@pytest.mark.parametrize("state", State, ids=lambda s: s.name)
def test_pair(state: State, name: str) -> None:
    host = STATES[state]()
    assert host.state is state
    host.write(PACKETS[name], version=5)
    answers = [type(p) for p in host.replies()]
    if state is State.OPEN:
        assert (host.state, answers) == OPEN[name]
    elif state is State.NEW and name == "CONNECT":
        assert (host.state, answers) == (State.AUTHENTICATING, [])
    else:
        assert (host.state, answers) == (state, [])
    if host.state is State.NEW:
        host.write(connect(5))
    if host.state is State.AUTHENTICATING:  # what waited is acted on now, as in an open session
        host.authenticate(KNOWN)
        connack, *rest = (type(p) for p in host.replies())
        assert connack is m.Connack
        first = state is State.NEW and name == "CONNECT"
        assert (host.state, rest) == ((State.OPEN, []) if first else OPEN[name])
    if host.state is State.CLOSING:
        host.commit()
        assert [type(p) for p in host.replies()] == [m.Puback, m.Disconnect]
    assert (host.ended is not None) == (host.state is State.CLOSED)
