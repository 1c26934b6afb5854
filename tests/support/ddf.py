"""LwM2M object definition files that tests upload."""


def item(id: int | str, name: str = "R", operations: str = "R", more: str = "") -> str:
    return f'<Item ID="{id}"><Name>{name}</Name><Operations>{operations}</Operations>{more}</Item>'


def definition(
    id: int, *items: str, name: str = "Thing", version: str = "1.0", more: str = ""
) -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<LWM2M>\n<!-- a comment -->\n'
        f'<Object ObjectType="MODefinition"><Name>{name}</Name><Description1><![CDATA[<b>]]>'
        f"</Description1><ObjectID>{id}</ObjectID><ObjectVersion>{version}</ObjectVersion>{more}"
        f"<Resources>{''.join(items)}</Resources></Object></LWM2M>"
    ).encode()


DEVICE = definition(
    3,
    item(9, "Battery Level &amp; more", "RW",
         "<MultipleInstances>Multiple</MultipleInstances><Mandatory>Optional</Mandatory>"
         "<Type>Integer</Type><RangeEnumeration>0..100</RangeEnumeration>"),
    item(4, "Reboot", "E", "<MultipleInstances>Single</MultipleInstances>"
                           "<Mandatory>Mandatory</Mandatory><Type></Type>"),
    name="Device",
    version="1.2",
    more="<MultipleInstances>Single</MultipleInstances><Mandatory>Mandatory</Mandatory>",
)  # fmt: skip
