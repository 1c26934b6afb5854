"""Hypothesis strategies: every packet type, every field, per protocol version."""

from typing import Any

from hypothesis import strategies as st

from tbfast.model import mqtt as m
from tests.support.oracle_mqtt import PROPERTIES

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
topic = st.text(st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), max_size=12)
binary = st.binary(max_size=12)
packet_id = st.integers(1, 65_535)
code = st.integers(0, 255)
two = st.integers(0, 2**16 - 1)
four = st.integers(0, 2**32 - 1)
bit = st.integers(0, 1)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "payload_format_indicator": bit,
    "message_expiry_interval": four,
    "content_type": text,
    "response_topic": text,
    "correlation_data": binary,
    "session_expiry_interval": four,
    "assigned_client_identifier": text,
    "server_keep_alive": two,
    "authentication_method": text,
    "authentication_data": binary,
    "request_problem_information": bit,
    "will_delay_interval": four,
    "request_response_information": bit,
    "response_information": text,
    "server_reference": text,
    "reason_string": text,
    "receive_maximum": st.integers(1, 2**16 - 1),
    "topic_alias_maximum": two,
    "topic_alias": two,
    "maximum_qos": bit,
    "retain_available": bit,
    "maximum_packet_size": st.integers(1, 2**32 - 1),
    "wildcard_subscription_available": bit,
    "subscription_identifier_available": bit,
    "shared_subscription_available": bit,
}


@st.composite
def properties(draw: st.DrawFn, where: str, version: int) -> m.Properties | None:
    """What a packet named `where` may carry; None for an empty block and before MQTT 5."""
    if version < 5 or draw(st.booleans()):
        return None
    allowed = [field for field, _, places, _ in PROPERTIES.values() if where in places.split()]
    fields: dict[str, Any] = {}
    for field in draw(st.lists(st.sampled_from(allowed), unique=True, min_size=1, max_size=6)):
        if field == "user_properties":
            pairs = st.lists(st.tuples(text, text), min_size=1, max_size=3)
            fields[field] = tuple(draw(pairs))
        elif field == "subscription_identifiers":
            most = 3 if where == "PUBLISH" else 1
            numbers = st.lists(st.integers(1, 2**28 - 1), min_size=1, max_size=most)
            fields[field] = tuple(draw(numbers))
        else:
            fields[field] = draw(VALUES[field])
    return m.Properties(**fields)


def wills(version: int) -> st.SearchStrategy[m.Will]:
    return st.builds(
        m.Will,
        topic=text,
        payload=binary,
        qos=st.integers(0, 2),
        retain=st.booleans(),
        properties=properties("WILL", version),
    )


@st.composite
def publishes(draw: st.DrawFn, version: int) -> m.Publish:
    qos = draw(st.integers(0, 2))
    return m.Publish(
        draw(topic if version == 5 else topic.filter(bool)),
        draw(st.binary(max_size=200)),
        qos,
        draw(st.booleans()),
        draw(st.booleans()),
        draw(packet_id) if qos else None,
        draw(properties("PUBLISH", version)),
    )


def acknowledgements(version: int) -> st.SearchStrategy[m.Packet]:
    kinds = {
        "PUBACK": m.Puback,
        "PUBREC": m.Pubrec,
        "PUBREL": m.Pubrel,
        "PUBCOMP": m.Pubcomp,
    }
    return st.one_of(
        st.builds(
            kind,
            packet_id=packet_id,
            reason_code=code if version == 5 else st.just(0),
            properties=properties(where, version),
        )
        for where, kind in kinds.items()
    )


def subscriptions(version: int) -> st.SearchStrategy[m.Subscription]:
    if version < 5:
        return st.builds(m.Subscription, filter=text, qos=st.integers(0, 2))
    return st.builds(
        m.Subscription,
        filter=text,
        qos=st.integers(0, 2),
        no_local=st.booleans(),
        retain_as_published=st.booleans(),
        retain_handling=st.integers(0, 2),
    )


def some(elements: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(elements, min_size=1, max_size=4).map(tuple)


def connects(version: int) -> st.SearchStrategy[m.Connect]:
    return st.builds(
        m.Connect,
        protocol_version=st.just(version),
        client_id=text,
        clean_start=st.booleans(),
        keep_alive=two,
        username=st.none() | text,
        password=st.none() | binary,
        will=st.none() | wills(version),
        properties=properties("CONNECT", version),
    )


def connacks(version: int) -> st.SearchStrategy[m.Connack]:
    return st.builds(
        m.Connack,
        session_present=st.booleans(),
        reason_code=code,
        properties=properties("CONNACK", version),
    )


def subscribes(version: int) -> st.SearchStrategy[m.Packet]:
    return st.builds(
        m.Subscribe,
        packet_id=packet_id,
        subscriptions=some(subscriptions(version)),
        properties=properties("SUBSCRIBE", version),
    ) | st.builds(
        m.Unsubscribe,
        packet_id=packet_id,
        filters=some(text),
        properties=properties("UNSUBSCRIBE", version),
    )


def subacks(version: int) -> st.SearchStrategy[m.Packet]:
    return st.builds(
        m.Suback,
        packet_id=packet_id,
        reason_codes=some(code),
        properties=properties("SUBACK", version),
    ) | st.builds(
        m.Unsuback,
        packet_id=packet_id,
        reason_codes=some(code) if version == 5 else st.just(()),
        properties=properties("UNSUBACK", version),
    )


def outcomes(version: int) -> st.SearchStrategy[m.Packet]:
    if version < 5:
        return st.just(m.Disconnect())
    return st.builds(
        m.Disconnect, reason_code=code, properties=properties("DISCONNECT", 5)
    ) | st.builds(m.Auth, reason_code=code, properties=properties("AUTH", 5))


def packets(version: int) -> st.SearchStrategy[m.Packet]:
    """Any packet of this version, CONNECT included."""
    return st.one_of(
        publishes(version),
        acknowledgements(version),
        connects(version),
        connacks(version),
        subscribes(version),
        subacks(version),
        outcomes(version),
        st.sampled_from([m.Pingreq(), m.Pingresp()]),
    )
