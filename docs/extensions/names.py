"""Code in running text that names something public leads to it; ``ls.room.name`` that names nothing is a warning."""

import re
from typing import Any

from docutils import nodes
from public import ROOMS, everything
from sphinx.addnodes import pending_xref
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

LOG = logging.getLogger(__name__)
NAMED = re.compile(r"^(?P<ls>ls\.)?(?P<room>[a-z]+)\.(?P<name>\w+)")


class LinkNames(SphinxPostTransform):
    """Make references of literals such as ``ls.predict.run`` and ``store.open(path)``."""

    default_priority = 5

    def run(self, **kwargs: Any) -> None:
        for literal in list(self.document.findall(nodes.literal)):
            found = NAMED.match(literal.astext())
            if (
                found is None
                or found["room"] not in ROOMS
                or isinstance(literal.parent, pending_xref | nodes.reference)
            ):
                continue
            path = f"lsdask.{found['room']}.{found['name']}"
            if path in everything():
                literal.replace_self(self._reference(path, literal))
            elif found["ls"]:
                LOG.warning("%s names nothing public", literal.astext(), location=literal)

    def _reference(self, path: str, literal: nodes.literal) -> pending_xref:
        made = pending_xref(
            "", refdomain="py", reftype="obj", reftarget=path, refexplicit=True, refwarn=True, refdoc=self.env.docname
        )
        made += literal.deepcopy()
        return made


def setup(app: Any) -> dict[str, bool]:
    app.add_post_transform(LinkNames)
    return {"parallel_read_safe": True}
