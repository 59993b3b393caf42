"""Ranks on several machines: a machine that is lost is noticed, and the first rank's disk is enough."""

import socket

import psutil
import torch
import torch.distributed as dist
from lightning_fabric import Fabric

LOST_SECONDS = 60
"""Seconds without any answer of another machine, after which it is lost."""


def notice_lost_machines() -> None:
    """Let each connection of this process end if the machine at its other end gives no answer.

    A killed process closes its connections, and the others notice it at once. A machine without power or network does
    not, and a rank would wait for it until the timeout of the exchange, which is a day. The system itself answers for a
    process that only takes long. Call this when the ranks are connected.
    """
    probe = max(1, LOST_SECONDS // 4)
    wanted = {
        "TCP_KEEPIDLE": probe,
        "TCP_KEEPALIVE": probe,  # the name on macOS
        "TCP_KEEPINTVL": probe,
        "TCP_KEEPCNT": 4,
        "TCP_USER_TIMEOUT": 1000 * LOST_SECONDS,  # of what was sent and is not confirmed
    }
    options = {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}
    for connection in psutil.Process().net_connections("tcp"):
        if connection.fd < 0 or connection.status != psutil.CONN_ESTABLISHED:
            continue
        with socket.fromfd(connection.fd, connection.family, connection.type) as copy:  # options are of both
            copy.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in options.items():
                copy.setsockopt(socket.IPPROTO_TCP, option, value)


def from_first_rank(fabric: Fabric, content: bytes) -> bytes:
    """Return on every rank the bytes that the first rank gives."""
    if fabric.world_size == 1:
        return content
    size = torch.tensor(len(content), device=fabric.device)
    dist.broadcast(size, 0)
    values = torch.zeros(int(size), dtype=torch.uint8)
    if fabric.is_global_zero and content:
        values = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    values = values.to(fabric.device)
    dist.broadcast(values, 0)
    return values.cpu().numpy().tobytes()
