"""Relations between entities (REST spec 10)."""

from typing import Any, Final, Literal

import msgspec

RelationGroup = Literal["COMMON", "DASHBOARD", "RULE_CHAIN", "RULE_NODE", "EDGE"]

RELATION_TO_INDEX: Final = "relation-to:"  # + id of the entity it leads to : id of the relation


class Relation(msgspec.Struct, frozen=True, kw_only=True):
    """One directed relation; its ends, group and type are its identity."""

    from_type: str
    from_id: str
    to_type: str
    to_id: str
    type: str
    group: RelationGroup = "COMMON"
    additional_info: dict[str, Any] | None = None
    version: int = 1

    @property
    def id(self) -> str:
        """Id in the store: relations of one origin are neighbours."""
        return f"{self.from_id}:{self.to_id}:{self.group}:{self.type}"
