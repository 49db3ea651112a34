# lsdask on Pangeo's notebook image with PyTorch. Not built by the tests, which have no network.
ARG TAG=latest
FROM quay.io/pangeo/pytorch-notebook:${TAG}

COPY --chown=${NB_UID} pyproject.toml README.md LICENSE /tmp/lsdask/
COPY --chown=${NB_UID} lsdask /tmp/lsdask/lsdask
RUN pip install --no-cache-dir "/tmp/lsdask[cloud,icechunk]" && rm -rf /tmp/lsdask
