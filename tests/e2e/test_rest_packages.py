"""OTA packages over REST: kept, given to devices, deleted (REST spec 9; 3, rule 6)."""

import base64
import hashlib
import json
import uuid
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.support.api import Api
from tests.support.multipart import CONTENT_TYPE, form
from tests.support.rest_server import UPLOAD_BYTES, running_app

DATA = bytes(range(256)) * 1200  # more than one write


@pytest.fixture
def api(tmp_path: Path):
    with running_app(tmp_path / "data") as app:
        api = Api(app)
        yield api
        api.connection.close()


def default_profile(api: Api) -> dict:
    return api.done("GET", "/api/deviceProfileInfo/default")["id"]


def package(api: Api, title: str = "fw", **members: object) -> dict:
    body = {"type": "FIRMWARE", "title": title, "version": "1.0", "tag": f"{title} 1.0"}
    body["deviceProfileId"] = default_profile(api)
    return api.done("POST", "/api/otaPackage", body | members)


def upload(api: Api, package_id: str, body: bytes, kind: str = CONTENT_TYPE, **query: str):
    path = f"/api/otaPackage/{package_id}?{urlencode(query)}"
    response, text = api.raw("POST", path, body, **{"Content-Type": kind})
    return response.status, json.loads(text)


def ready(api: Api, title: str = "fw", **members: object) -> str:
    made = package(api, title, **members)["id"]["id"]
    assert upload(api, made, form(b"bytes"))[0] == 200
    return made


def stored(api: Api) -> list[str]:
    return sorted(p.name for p in api.app.layout.packages.iterdir())


def test_information_then_data(api: Api) -> None:
    made = package(api, additionalInfo={"description": "d"})
    package_id = made["id"]["id"]
    assert made == {
        "id": {"entityType": "OTA_PACKAGE", "id": package_id},
        "createdTime": made["createdTime"],
        "additionalInfo": {"description": "d"},
        "tenantId": {"entityType": "TENANT", "id": api.app.registry.tenant_id},
        "deviceProfileId": default_profile(api),
        "type": "FIRMWARE", "title": "fw", "version": "1.0", "tag": "fw 1.0", "url": None,
        "hasData": False, "fileName": None, "contentType": None, "checksumAlgorithm": None,
        "checksum": None, "dataSize": None, "externalId": None, "name": "fw",
    }  # fmt: skip
    assert api.done("GET", f"/api/otaPackage/{package_id}") == {**made, "data": None}
    assert api.error("GET", f"/api/otaPackage/{package_id}/download")[:2] == (400, 31)

    status, saved = upload(api, package_id, form(DATA, file_name="a b.bin", kind="image/x"))
    assert (status, saved) == (200, {
        **made, "hasData": True, "fileName": "a b.bin", "contentType": "image/x",
        "checksumAlgorithm": "SHA256", "checksum": hashlib.sha256(DATA).hexdigest(),
        "dataSize": len(DATA),
    })  # fmt: skip
    assert api.done("GET", f"/api/otaPackage/info/{package_id}") == saved
    whole = api.done("GET", f"/api/otaPackage/{package_id}")
    assert base64.b64decode(whole.pop("data"), validate=True) == DATA
    assert whole == saved
    response, data = api.raw("GET", f"/api/otaPackage/{package_id}/download")
    assert data == DATA
    assert response.headers["content-disposition"] == 'attachment;filename="a b.bin"'
    assert response.headers["x-filename"] == "a b.bin"
    assert response.headers["content-type"] == "image/x"
    assert response.headers["content-length"] == str(len(DATA))


@pytest.mark.parametrize(
    ("algorithm", "checksum"),
    [
        ("CRC32", "2639f4cb"), ("MD5", "25f9e794323b453885f5181f1b624d0b"),
        ("MURMUR3_32", ""), ("SHA512", ""),
    ],
)  # fmt: skip
def test_checksums(api: Api, algorithm: str, checksum: str) -> None:
    made = package(api)["id"]["id"]
    data = b"123456789"
    status, saved = upload(
        api, made, form(data), checksum=checksum.upper(), checksumAlgorithm=algorithm
    )
    assert status == 200
    assert saved["checksumAlgorithm"] == algorithm
    assert saved["checksum"] == (checksum or saved["checksum"])
    assert saved["checksum"] == saved["checksum"].lower() != ""


def test_a_wrong_upload_leaves_nothing(api: Api) -> None:
    made = package(api)["id"]["id"]
    status, error = upload(api, made, form(DATA), checksum="00")
    assert (status, error["errorCode"], error["message"]) == (400, 31, "Wrong otaPackage file!")
    for body, kind, status, why in (
        (form(DATA, name="other"), CONTENT_TYPE, 400, "part 'file' is not present"),
        (form(b""), CONTENT_TYPE, 400, "is empty"),
        (form(DATA)[:-20], CONTENT_TYPE, 400, "cut short"),
        (b"no form", CONTENT_TYPE, 400, "no multipart"),
        (DATA, "application/octet-stream", 400, "should be multipart"),
        (form(bytes(UPLOAD_BYTES)), CONTENT_TYPE, 413, f"longer than {UPLOAD_BYTES}"),
    ):
        found, error = upload(api, made, body, kind)
        assert (found, error["errorCode"]) == (status, 31), why
        assert why in error["message"]
        api.connection.close()
    assert upload(api, made, form(DATA), checksumAlgorithm="SHA1")[0] == 400
    assert upload(api, str(uuid.uuid4()), form(DATA))[0] == 404
    assert stored(api) == []
    assert api.done("GET", f"/api/otaPackage/info/{made}")["hasData"] is False
    assert upload(api, made, form(DATA))[0] == 200
    assert upload(api, made, form(b"other"))[0] == 400
    assert api.raw("GET", f"/api/otaPackage/{made}/download")[1] == DATA


def test_only_additional_info_changes(api: Api) -> None:
    made = ready(api)
    info = api.done("GET", f"/api/otaPackage/info/{made}")
    saved = api.done("POST", "/api/otaPackage", {**info, "additionalInfo": {"a": 1}})
    assert saved == {**info, "additionalInfo": {"a": 1}}
    for member, value in (
        ("title", "b"), ("version", "2"), ("tag", "t"), ("type", "SOFTWARE"), ("url", "http://a"),
        ("fileName", "x"), ("contentType", "a/b"), ("checksum", "00"), ("dataSize", 1),
        ("checksumAlgorithm", "MD5"), ("deviceProfileId", {"id": str(uuid.uuid4())}),
    ):  # fmt: skip
        error = api.error("POST", "/api/otaPackage", {**info, member: value})
        assert error[:2] == (400, 31), member
        assert "is prohibited!" in error[2]
    assert api.error("POST", "/api/otaPackage", {**info, "id": {"id": str(uuid.uuid4())}})[0] == 404


def test_what_a_package_must_say(api: Api) -> None:
    package(api)
    body = {"type": "FIRMWARE", "title": "fw", "version": "1.0"}
    body["deviceProfileId"] = default_profile(api)
    for members, why in (
        ({}, "OtaPackage with such title and version already exists!"),
        ({"title": " "}, "title should be specified!"),
        ({"version": ""}, "version should be specified!"),
        ({"title": "n", "deviceProfileId": None}, "should be specified!"),
        ({"title": "n", "deviceProfileId": {"id": str(uuid.uuid4())}}, "non-existent"),
        ({"title": "n", "usesUrl": True}, "URL should be specified!"),
        ({"title": "n", "type": "OTHER"}, "Invalid"),
    ):
        error = api.error("POST", "/api/otaPackage", body | members)
        assert error[:2] == (400, 31)
        assert why in error[2]
    assert package(api, type="SOFTWARE")["type"] == "SOFTWARE", "another type, the same title"


def test_packages_at_a_url(api: Api) -> None:
    made = package(api, url="https://host/fw", usesUrl=True, checksum="00", dataSize=7)
    assert (made["url"], made["hasData"], made["dataSize"]) == ("https://host/fw", False, 7)
    package_id = made["id"]["id"]
    assert api.error("GET", f"/api/otaPackage/{package_id}/download")[:2] == (400, 31)
    assert upload(api, package_id, form(DATA))[0] == 400
    assert package(api, "none", url="https://host/fw", usesUrl=False)["url"] is None


def test_lists(api: Api) -> None:
    first = ready(api, "Beta")
    package(api, "alpha")
    software = ready(api, "beta two", type="SOFTWARE")
    page = api.done(
        "GET", "/api/otaPackages", pageSize=2, page=0, sortProperty="title", sortOrder="ASC"
    )
    assert [p["title"] for p in page["data"]] == ["alpha", "Beta"]
    by_url = {"sortProperty": "url", "sortOrder": "DESC"}
    elsewhere = package(api, "gamma", url="https://host/fw")["id"]["id"]
    page = api.done("GET", "/api/otaPackages", pageSize=1, page=0, **by_url)
    assert page["data"][0]["id"]["id"] == elsewhere
    api.done("DELETE", f"/api/otaPackage/{elsewhere}")
    page = api.done("GET", "/api/otaPackages", pageSize=2, page=0, sortProperty="title")
    assert (page["totalElements"], page["hasNext"]) == (3, True)
    found = api.done("GET", "/api/otaPackages", pageSize=9, page=0, textSearch="BETA")
    assert {p["id"]["id"] for p in found["data"]} == {first, software}
    profile = default_profile(api)["id"]
    for type_, wanted in (("FIRMWARE", [first]), ("SOFTWARE", [software])):
        path = f"/api/otaPackages/{profile}/{type_}"
        assert [p["id"]["id"] for p in api.done("GET", path, pageSize=9, page=0)["data"]] == wanted
    assert api.error("GET", f"/api/otaPackages/{profile}/OTHER", pageSize=9, page=0)[0] == 400


def reference(package_id: str) -> dict:
    return {"entityType": "OTA_PACKAGE", "id": package_id}


def test_who_may_have_a_package(api: Api) -> None:
    made, empty = ready(api), package(api, "empty")["id"]["id"]
    software = ready(api, "sw", type="SOFTWARE")
    profile = api.done("POST", "/api/deviceProfile", {"name": "p"})
    foreign = ready(api, "of p", deviceProfileId=profile["id"])
    for package_id, why in (
        (str(uuid.uuid4()), "Can't assign non-existent firmware!"),
        (software, "Can't assign firmware with type: SOFTWARE!"),
        (empty, "Can't assign firmware with empty data!"),
        (foreign, "Can't assign firmware with different deviceProfile!"),
    ):
        body = {"name": "d", "firmwareId": reference(package_id)}
        assert api.error("POST", "/api/device", body) == (400, 31, why)
    given = api.done("POST", "/api/device", {"name": "d", "firmwareId": reference(made)})
    assert given["firmwareId"] == reference(made)
    with_package = api.done(
        "POST", "/api/deviceProfile", {**profile, "firmwareId": reference(foreign)}
    )
    assert with_package["firmwareId"] == reference(foreign)


def test_a_package_in_use_stays(api: Api) -> None:
    made = ready(api)
    path = f"/api/otaPackage/{made}"
    device = api.done("POST", "/api/device", {"name": "d", "firmwareId": reference(made)})
    why = "The otaPackage referenced by the devices cannot be deleted!"
    assert api.error("DELETE", path) == (400, 31, why)
    profile = api.done("GET", f"/api/deviceProfile/{default_profile(api)['id']}")
    api.done("POST", "/api/device", {**device, "firmwareId": None})
    profile = api.done("POST", "/api/deviceProfile", {**profile, "firmwareId": reference(made)})
    why = "The otaPackage referenced by the device profile cannot be deleted!"
    assert api.error("DELETE", path) == (400, 31, why)
    api.done("POST", "/api/deviceProfile", {**profile, "firmwareId": None})
    assert stored(api) == [made]
    assert api("DELETE", path) == (200, None)
    assert stored(api) == []
    assert api.error("DELETE", path)[:2] == (404, 32)
    assert package(api)["hasData"] is False, "the title is free again"
