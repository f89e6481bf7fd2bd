"""Servers to compare with, each started on a port of its own and stopped by its process id when the context ends."""

from transom.bench.peers.aistore import aistore
from transom.bench.peers.moto import moto
from transom.bench.peers.nginx import nginx
from transom.bench.peers.process import Memory, Peer, PeerError
from transom.bench.peers.rclone import rclone
from transom.bench.peers.transom import transom

__all__ = ["Memory", "Peer", "PeerError", "aistore", "moto", "nginx", "rclone", "transom"]
