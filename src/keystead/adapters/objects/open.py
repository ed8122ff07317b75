"""The object store that a configuration asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keystead.adapters.objects import references
from keystead.adapters.objects.folder import FolderObjects
from keystead.core.configuration import ContainerConfig, ContainerKind, ObjectsConfig

if TYPE_CHECKING:
    from pathlib import Path

    from keystead.adapters.objects.containers import Container
    from keystead.ports.objects import ObjectStore


def open_objects(config: ObjectsConfig, home: Path) -> ObjectStore:
    """The folders of the home, or the containers that are configured. Nothing is called or read yet but certificates.

    Args:
        config: `[objects]` of keystead.toml.
        home: folder that relative paths count from.

    Raises:
        InvalidRequest: the configuration cannot be meant.
    """
    if not config.containers:
        return FolderObjects(home / "objects")
    from keystead.adapters.objects.containers import Containers  # noqa: PLC0415 - most homes have none

    names = [container.name for container in config.containers]
    for name in names:
        if not references.is_container(name) or names.count(name) > 1:
            raise references.unfit(name, "containers are named c0 to c99, each name once")
    accepting = [container.name for container in config.containers if container.accepts_new]
    if not accepting:
        raise references.unfit(names[0], "at least one container must have accepts_new = true, or nothing can be stored")
    return Containers({container.name: _container(container, config, home) for container in config.containers}, accepting)


def _container(container: ContainerConfig, config: ObjectsConfig, home: Path) -> Container:
    if container.kind is ContainerKind.FOLDER:
        if not container.path:
            raise references.unfit(container.name, "a folder needs a path")
        return FolderObjects(home / container.path, only=container.name)
    # obstore takes 20 ms to load: only for whom it is.
    from keystead.adapters.objects.credentials import AzureCredentials, CredentialsFile, S3Credentials  # noqa: PLC0415 - as said
    from keystead.adapters.objects.reaching import reach_of  # noqa: PLC0415 - as said
    from keystead.adapters.objects.remote import RemoteObjects  # noqa: PLC0415 - as said

    if not container.credentials_file:
        raise references.unfit(container.name, "a remote container needs a credentials_file")
    reach, file = reach_of(container, config, home), home / container.credentials_file
    if container.kind is ContainerKind.S3:
        return RemoteObjects(container.name, reach, CredentialsFile(file, S3Credentials, container.name))
    return RemoteObjects(container.name, reach, CredentialsFile(file, AzureCredentials, container.name))
