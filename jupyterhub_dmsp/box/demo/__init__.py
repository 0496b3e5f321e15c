"""The demo lake's content: real files from packages and simulated samples, registered in Rucio.

``inside/`` makes the files in an environment of its own and knows nothing of us.
"""

from jupyterhub_dmsp.box.demo.content import DEFAULT_SITES, fill, stage
from jupyterhub_dmsp.box.demo.scale import SCOPE as SCALE_SCOPE
from jupyterhub_dmsp.box.demo.scale import scale

__all__ = ["DEFAULT_SITES", "SCALE_SCOPE", "fill", "scale", "stage"]
