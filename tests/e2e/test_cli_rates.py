"""`tbfast rates` on a running server, and without one."""

import json

from tests.support.server import Server

LIMIT = "transportDeviceMsgRateLimit"


def test_limits_are_set_and_shown(own_server: Server) -> None:
    shown = json.loads(own_server.cli("rates", "show", "--json"))
    assert set(shown.values()) == {None}
    assert len(shown) == 12
    changed = json.loads(own_server.cli("rates", "set", f"{LIMIT.upper()}=20:600", "--json"))
    assert changed == shown | {LIMIT: "20:600"}
    other = "transportTenantMsgRateLimit"
    assert f"{LIMIT}\t20:600" in own_server.cli("rates", "set", f"{other}=5:1,9:2")
    assert json.loads(own_server.cli("rates", "set", f"{LIMIT}=", "--json")) == shown | {
        other: "5:1,9:2"
    }
    own_server.cli("rates", "set", f"{LIMIT}=20", code=2)
    own_server.cli("rates", "set", "speed=20:1", code=2)
    own_server.stop()
    own_server.cli("rates", "show", code=4)
