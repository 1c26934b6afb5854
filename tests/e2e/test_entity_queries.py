"""Entity queries on a real node: latest values that devices have just sent."""

from tests.support.server import Server


def test_latest_values_of_devices_that_match(server: Server) -> None:
    names = ["query-a", "query-b", "query-c"]
    try:
        for n, name in enumerate(names):
            server.add_device(name)
            path = f"/api/plugins/telemetry/DEVICE/{server.device_id(name)}/timeseries/ANY"
            sent = {"ts": 1_700_000_000_000, "values": {"level": n * 10.5, "text": 'a "b"'}}
            assert server.rest("POST", path, sent)[0] == 200
        level = {"type": "TIME_SERIES", "key": "level"}
        query = {
            "entityFilter": {
                "type": "entityName", "entityType": "DEVICE", "entityNameFilter": "query-",
            },
            "latestValues": [level, {"type": "TIME_SERIES", "key": "text"}],
            "keyFilters": [{
                "key": level,
                "predicate": {
                    "type": "NUMERIC", "operation": "GREATER", "value": {"defaultValue": 5},
                },
            }],
            "pageLink": {
                "pageSize": 10, "page": 0, "sortOrder": {"key": level, "direction": "DESC"},
            },
        }  # fmt: skip
        status, page = server.rest("POST", "/api/entitiesQuery/find", query)
        assert status == 200
        assert [row["latest"]["TIME_SERIES"] for row in page["data"]] == [
            {
                "level": {"ts": 1_700_000_000_000, "value": value},
                "text": {"ts": 1_700_000_000_000, "value": 'a "b"'},
            }
            for value in ("21.0", "10.5")
        ]
    finally:
        for name in names:
            server.remove_device(name)
