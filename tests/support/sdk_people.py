"""Runs on ThingsBoard's own REST client, in a process where its libraries are the only ones.

python tests/support/sdk_people.py HTTP_PORT MQTT_PORT: does what an administrator's scripts do and
prints what the client made of the answers, as JSON.
"""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as mqtt
from tb_rest_client import models as m
from tb_rest_client.rest import ApiException
from tb_rest_client.rest_client import RestClient

WAIT_S = 10.0
TOKEN = "sdk-token"
REQUESTS = "v1/devices/me/rpc/request/"


@contextmanager
def answering(port: int) -> Iterator[None]:
    """A device that answers calls with their params."""
    ready = threading.Event()
    device = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    device.username_pw_set(TOKEN)
    device.on_connect = lambda client, *_: client.subscribe(REQUESTS + "+", 1)
    device.on_subscribe = lambda *_: ready.set()

    def answer(client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        number = message.topic.removeprefix(REQUESTS)
        params = json.loads(message.payload)["params"]
        client.publish(f"v1/devices/me/rpc/response/{number}", json.dumps({"got": params}), 1)

    device.on_message = answer
    device.connect("127.0.0.1", port)
    device.loop_start()
    assert ready.wait(WAIT_S)
    yield
    device.disconnect()
    device.loop_stop()


def values(series: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Times and values by key."""
    found = {}
    for key, points in series.items():
        plain = [p if isinstance(p, dict) else p.to_dict() for p in points]
        found[key] = [[point["ts"], point["value"]] for point in plain]
    return found


def main(http_port: int, mqtt_port: int) -> None:
    out: dict[str, Any] = {}
    with RestClient(f"http://127.0.0.1:{http_port}") as client:
        client.login("tenant@thingsboard.org", "tenant")
        first = client.get_token()
        client.refresh()
        out["refreshed"] = bool(first) and bool(client.get_token())
        user = client.get_user()
        out["user"] = [user.email, user.authority]

        profile = client.save_device_profile(
            m.DeviceProfile(
                name="sdk profile", type="DEFAULT", transport_type="DEFAULT",
                profile_data=m.DeviceProfileData(
                    configuration={"type": "DEFAULT"}, transport_configuration={"type": "DEFAULT"}
                ),
            )
        )  # fmt: skip
        listed = client.get_device_profiles(page_size=10, page=0).data
        out["profiles"] = sorted(known.name for known in listed)

        customer = client.save_customer(m.Customer(title="sdk customer"))
        device = client.save_device(
            m.Device(name="sdk device", device_profile_id=profile.id, customer_id=customer.id),
            access_token=TOKEN,
        )
        out["device"] = [device.name, device.type, client.get_customer_by_id(customer.id).title]
        out["by name"] = client.get_tenant_device("sdk device").id.id == device.id.id
        out["page"] = client.get_tenant_devices(page_size=10, page=0).total_elements
        credentials = client.get_device_credentials_by_device_id(device.id)
        out["credentials"] = [credentials.credentials_type, credentials.credentials_id]

        for ts, t in ((1000, 1), (2000, 2.5)):
            record = {"ts": ts, "values": {"t": t, "on": True}}
            client.save_entity_telemetry(device.id, "ANY", record)
        out["keys"] = sorted(client.get_timeseries_keys_v1(device.id))
        out["latest"] = values(client.get_latest_timeseries(device.id, keys="t,on"))
        out["history"] = values(client.get_timeseries(device.id, 0, 9000, keys="t"))
        out["strict"] = values(
            client.get_timeseries(device.id, 0, 9000, keys="t", use_strict_data_types=True)
        )
        client.delete_entity_timeseries(device.id, keys="t", delete_all_data_for_keys=True)
        out["deleted"] = sorted(client.get_timeseries_keys_v1(device.id))

        client.save_entity_attributes_v2(device.id, "SHARED_SCOPE", {"limit": 7})
        found = client.get_attributes_by_scope(device.id, "SHARED_SCOPE")
        out["attributes"] = [[row.key, row.value] for row in found]

        with answering(mqtt_port):
            call = {"method": "echo", "params": {"pin": 7}, "timeout": 10_000}
            out["two-way"] = client.handle_two_way_device_rpc_request(device.id, call)
            client.handle_one_way_device_rpc_request(device.id, call)

        other = client.save_device(m.Device(name="sdk other"))
        client.save_relation(
            m.EntityRelation(_from=device.id, to=other.id, type="Contains", type_group="COMMON")
        )
        relations = client.find_by_from(device.id, "Contains")
        out["relations"] = [relation.to.id == other.id.id for relation in relations]
        page = client.find_entity_data_by_query(
            m.EntityDataQuery(
                entity_filter=m.SingleEntityFilter(type="singleEntity", single_entity=device.id),
                entity_fields=[m.EntityKey(type="ENTITY_FIELD", key="name")],
                latest_values=[m.EntityKey(type="TIME_SERIES", key="on")],
                page_link=m.EntityDataPageLink(page_size=10, page=0),
            )
        )
        out["query"] = [row.entity_id.id == device.id.id for row in page.data]

        client.delete_device(device.id)
        try:
            client.get_device_by_id(device.id)
        except ApiException as error:
            out["gone"] = error.status
        out["no relations"] = len(client.find_by_from(device.id, "Contains"))
        client.delete_device(other.id)
        client.delete_customer(customer.id)
        client.delete_device_profile(profile.id)
        client.logout()
    print(json.dumps(out))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
