"""What a commit does to the connections, for every protocol of a worker."""

from tbfast._ext.ingest import Group
from tbfast.errors import StoreError
from tbfast.net.http_device import DeviceApi
from tbfast.net.mqtt import MqttPort


class Answers:
    """Hands the outcome of each group to everybody with a request in it."""

    def __init__(self, mqtt: MqttPort, http: DeviceApi) -> None:
        self._mqtt = mqtt
        self._http = http

    def complete(self, group: Group) -> None:
        """The group is durable: its answers go out."""
        self._mqtt.complete(group)
        self._http.complete(group)

    def fail(self, group: Group, error: StoreError) -> None:
        """The group was not stored."""
        self._mqtt.fail(group, error)
        self._http.fail(group, error)

    def press(self, on: bool) -> None:
        """Back-pressure on or off."""
        self._mqtt.press(on)
        self._http.press(on)
