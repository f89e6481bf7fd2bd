"""How a target talks to a worker: HTTP push and pull, WebSocket, standard input and output."""
